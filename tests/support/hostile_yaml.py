"""YAML documents made to harm whoever reads them, by name; none of them is a strategy."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["hostile_documents"]

_TAGS = (
    *(
        "!!python/object/apply:os.system ['touch pwned']",
        "!!python/object:os.system {}",
        "!!python/name:os.system",
    ),
    *(
        "!!python/object/new:os.system ['id']",
        "!!python/module:os",
        "!!python/tuple [1, 2]",
        "!!python/bytes x",
    ),
    *("!!python/object/apply:subprocess.check_output [[id]]", "!!python/object/apply:builtins.eval ['1']"),
    *("!<tag:yaml.org,2002:python/object/apply:os.system> ['id']", "!!binary aGVsbG8=", "!!set {a, b}"),
    *(
        "!!omap [a: 1]",
        "!!pairs [a: 1]",
        "!!timestamp 2001-12-14",
        "!!merge <<",
        "!!value =",
        "!local x",
        "! x",
    ),
    *("!!js/function 'function(){}'", "!ruby/object:Gem::Installer {}", "!!java.net.URLClassLoader []"),
    *("!!float 1", "!!int 1", "!!str x", "!!map {}", "!!seq []", "!!null ''", "!!bool yes"),
)
_SCALARS = (
    *(".nan", ".inf", "-.inf", "1e999999", "-1e999999", "1e-999999", "0x" + "f" * 5000, "0o" + "7" * 5000),
    *("9" * 5000, "-" + "9" * 5000, "1." + "0" * 5000 + "1", "9" * 200_000, "1_000", "0b1", "1:30:00"),
    *(
        "2001-12-14t21:59:43.10-05:00",
        "2001-13-45",
        "yes",
        "~",
        "''",
        "' '",
        "[]",
        "{}",
        "[[]]",
        "x" * 100_000,
    ),
    *(
        "'\\0'",
        '"\\0"',
        '"\\x00"',
        '"\\u202e"',
        '"\\ud800"',
        '"\\uFFFF"',
        '"\\UFFFFFFFF"',
        '"\\U00110000"',
        '"\\U0010FFFF"',
        '"\\q"',
    ),
    *(
        "|\n  " + "a\n  " * 10_000,
        ">\n  " + "a\n  " * 10_000,
        "|99999999\n  x",
        "|-+\n  x",
        "`x`",
        "@x",
        "%x",
    ),
)


def hostile_documents(valid: str) -> dict[str, str]:
    """Name to text; ``valid`` is a valid strategy's text, into which some are planted."""
    head = "name: trap\n"
    found = dict(_unfolding())
    found |= {f"deep {kind}": text for kind, text in _deep()}
    found |= {f"tag {tag[:40]}": f"{head}x: {tag}\n" for tag in _TAGS}
    found |= {
        f"tag in its place {n}": valid.replace("epochs:", f"epochs: {tag} #", 1)
        for n, tag in enumerate(_TAGS[:6])
    }
    found |= {f"scalar {scalar[:20]!r} {len(scalar)}": f"{head}indicators: {scalar}\n" for scalar in _SCALARS}
    found |= {
        f"epochs {s[:20]!r} {len(s)}": valid.replace("epochs:", f"epochs: {s} #", 1) for s in _SCALARS[:12]
    }
    found |= dict(_malformed(head, valid))
    found |= {
        f"control {code:#x}": f"{head}description: a{chr(code)}b\n"
        for code in (0, 1, 7, 8, 11, 12, 27, 31, 127)
    }
    found |= {
        f"control {code:#x}": f"{head}description: a{chr(code)}b\n" for code in (0x80, 0x9F, 0xFFFE, 0xFFFF)
    }
    found |= {f"surrogate {code:#x}": f"{head}description: a{chr(code)}b\n" for code in (0xD800, 0xDFFF)}
    return found


def _unfolding() -> Iterator[tuple[str, str]]:
    laughs = "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        laughs += f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    yield "billion laughs", laughs
    yield (
        "billion laughs in mappings",
        "a: &a {x: 1}\n"
        + "".join(
            f"{n}: &{n} {{p: *{b}, q: *{b}, r: *{b}}}\n" for b, n in zip("abcdefgh", "bcdefghi", strict=True)
        ),
    )
    yield "an alias of itself", "a: &a [*a]\n"
    yield "a mapping in itself", "&a {x: *a}\n"
    yield "a key that is the mapping itself", "&a {*a : 1}\n"
    yield "an anchor alone", "name: &a trap\n"
    yield "an alias to nothing", "name: *nothing\n"
    yield "an anchor twice", "a: &x 1\nb: &x 2\nc: *x\n"
    yield "a merge key", "a: &a {name: trap}\nb: {<<: *a}\n"
    yield "a merge key of a list", "a: &a {x: 1}\nb: {<<: [*a, *a]}\n"
    yield "a merge key without an alias", "<<: {name: trap}\n"
    yield "a merge of itself", "&a\n<<: *a\n"
    yield "many anchors", "".join(f"k{i}: &a{i} {i}\n" for i in range(5000))
    yield "a long anchor", f"a: &{'a' * 100_000} 1\n"


def _deep() -> Iterator[tuple[str, str]]:
    for depth in (40, 1000, 20_000, 100_000):
        yield f"lists {depth}", "x: " + "[" * depth + "]" * depth + "\n"
        yield f"open lists {depth}", "x: " + "[" * depth + "\n"
        yield f"mappings {depth}", "x: " + "{a: " * min(depth, 40_000) + "1" + "}" * min(depth, 40_000) + "\n"
    yield "block lists", "x:\n" + "- " * 50_000 + "1\n"
    yield "indented mappings", "".join(" " * i + "a:\n" for i in range(600))
    yield "question marks", "? " * 20_000 + "\n"


def _malformed(head: str, valid: str) -> Iterator[tuple[str, str]]:
    yield "too large", head + "description: '" + "x" * 300_000 + "'\n"
    yield "too large comment", head + "#" * 300_000 + "\n"
    yield "many keys", "".join(f"k{i}: 1\n" for i in range(25_000))
    yield "many values", "x: [" + "1," * 60_000 + "]\n"
    yield "a duplicate key", valid + "\nname: again\n"
    yield "a thousand duplicates", head * 1000
    yield "two documents", valid + "\n---\n" + valid
    yield "a thousand documents", "--- {}\n" * 1000
    yield "an end in the middle", head + "...\n" + valid
    yield "directives", "%YAML 9.9\n---\n" + head
    yield "a tag directive", "%TAG ! tag:evil.example,2002:\n---\nname: !x trap\n"
    yield "a byte order mark inside", head + "\ufeffdescription: x\n"
    yield "two byte order marks", "\ufeff\ufeff" + head
    yield "UTF-16 read as Latin-1", head.encode("utf-16").decode("latin-1")
    yield "UTF-32 read as Latin-1", head.encode("utf-32").decode("latin-1")
    yield "a tab for indentation", "indicators:\n\trsi: 1\n"
    yield "nothing", ""
    yield "blanks", " \n\t\n"
    yield "a comment", "# nothing\n"
    yield "a scalar", "trap\n"
    yield "a list", "- name: trap\n"
    yield "null", "null\n"
    yield "a number for a key", head + "1: x\n"
    yield "a list for a key", head + "[a, b]: x\n"
    yield "a mapping for a key", head + "{a: b}: x\n"
    yield "null for a key", head + "~: x\n"
    yield "a long key", head + "k" * 100_000 + ": x\n"
    yield "an unfinished quote", head + "description: 'x\n"
    yield "an unfinished double quote", head + 'description: "' + "x\\\n" * 10_000
    yield "a name that is a path", valid.replace("name: ", "name: ../", 1)
    yield "line separators", head + "description: a\u2028b\u2029c\x85d\n"
    yield "JSON in one line, then more", '{"name": "trap"} x\n'
    yield "markup", "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><x>&a;</x>\n"
    yield "percent", "%" * 10_000
    yield "colons", ":" * 50_000
    yield "dashes", "-" * 50_000
    yield "braces", "{" * 50
    yield "commas", "[,,,,]"
