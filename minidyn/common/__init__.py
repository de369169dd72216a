"""What every room may use: errors, numbers from elsewhere, files that are whole, reports, objects that are values."""
