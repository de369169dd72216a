"""What a step draws: numbers of a law, in the order in which every path draws them.

The text exists in two forms: many rows for 64 paths side by side (`lines`), and the numbers `z_0, z_1, ...` of one
lane whose generator is in registers (`alone`).
"""

from dataclasses import dataclass

_WORDS = "r_0, r_1, r_2, r_3"


@dataclass(frozen=True)
class Law:
    """A law of numbers with mean 0, variance 1 and no third moment; or one without a variance.

    value : the number in a kernel's words, made of 64 random bits, `word`, or of twice as many, `word` and `more`.
    excess : its fourth moment beyond a normal's, `E z^4 - 3`.  filler : the kernel that draws rows of it, if there is.
    normal : whether this is the normal law, by whose numbers flows can be driven.  words : 1 or 2.
    """

    value: str
    excess: float
    filler: str = ""
    normal: bool = False
    words: int = 1

    @property
    def _next(self) -> list[str]:
        return [f"{name}, {_WORDS} = next_word({_WORDS})" for name in ("word", "more")[: self.words]]

    def formula(self, letter: str) -> str:
        """What a number, or each number of a vector, is: in LaTeX."""
        if self.normal:
            return rf"{letter} \sim \mathcal{{N}}(0, I)"
        signs = self.excess == -2.0  # E z^4 = (E z^2)^2: nothing else has that
        return rf"{letter} = \pm 1" if signs else rf"\mathrm{{E}}\,{letter} = 0, \mathrm{{E}}\,{{{letter}}}^{{2}} = 1"

    def lines(self, row: int, count: int | str) -> list[str]:
        """Draw rows from `row` on, so many of them, which may be an expression in the kernel's words."""
        many = str(count)
        if self.filler:
            return [f"{self.filler}(r, z, {row}, {many})"]
        words = ", ".join(f"r[{64 * i} + lane]" for i in range(4))
        return [
            "for lane in lanes(64):",
            f"    {_WORDS} = {words}",
            f"    for q in range({many}):",
            *["        " + line for line in self._next],
            f"        z[({row} + q) * 64 + lane] = {self.value}",
            *[f"    r[{64 * i} + lane] = r_{i}" for i in range(4)],
        ]

    def alone(self, row: int, count: int, steps: bool) -> list[str]:
        """The same for one lane; `steps` says whether what is left of a pair goes to the next step."""
        rows = range(row, row + count)
        return [line for q in rows for line in (*self._next, f"z_{q} = {self.value}")]


class _Normal(Law):
    """Normals come in pairs; of an odd number per step the last shares its pair with the next step's, unless they
    are those of a batch."""

    def lines(self, row: int, count: int | str) -> list[str]:
        if isinstance(count, str):
            return [f"normals(r, z, {row}, ({count} + 1) // 2)"]
        odd = [f"half_pair(r, z, {row + count - 1}, k)"] if count % 2 else []
        return [f"normals(r, z, {row}, {count // 2})", *odd]

    def alone(self, row: int, count: int, steps: bool) -> list[str]:
        def pair(first: str, second: str) -> str:
            return f"{first}, {second}, {_WORDS} = next_pair({_WORDS})"

        last = row + count - 1
        lines = [pair(f"z_{q}", f"z_{q + 1}") for q in range(row, last, 2)]
        if count % 2 and not steps:
            lines.append(pair(f"z_{last}", "_"))
        elif count % 2:
            lines += ["if (k + t) % 2 == 0:", "    " + pair(f"z_{last}", "kept"), "else:", f"    z_{last} = kept"]
        return lines


NORMAL = _Normal("", 0.0, normal=True)
SIGNS = Law("1.0 if (word >> np.uint64(63)) != np.uint64(0) else -1.0", -2.0, "signs")
LAWS = {"normal": NORMAL, "rademacher": SIGNS}
