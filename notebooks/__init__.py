"""Studies, one notebook each; tutorials in a folder of their own."""
