"""Tables for tests of the formats that are files of typed columns."""

from hypothesis import strategies as st

from appliance.recorders.table import Column, Table

KINDS = ("integer", "number", "boolean", "text", "time")

TIME_US = 1_764_417_600_123_456
"""2025-11-29 12:00:00.123456 UTC."""

EDGES = {
    "integer": [0, 1, -1, 2**31 - 1, 2**31, -(2**31), 2**53, 2**53 + 1, 2**63 - 1, -(2**63), None],
    "number": [0.0, 20.5, -1e-300, 1.7976931348623157e308, float("inf"), float("-inf"), 0.1, None],
    "boolean": [True, False, None],
    "text": ["", "007", "ü€😀", 'a "b" <c>&', "line\r\nbreak", "{'a': 5}", "1e400", " ", None],
    "time": [0, 1, -1, TIME_US, TIME_US + 1, TIME_US + 10**6, 4_102_444_799_999_999, None],
}
"""Values of each kind that some writer gets wrong."""


def table(columns, rows):
    """From ``{name: kind}`` and rows."""
    made = tuple(Column(name, kind) for name, kind in columns.items())
    return Table(made, [[row[at] for row in rows] for at in range(len(made))], len(rows))


def edge_table():
    """All edge values, each column filled with NULLs to the same length."""
    count = max(map(len, EDGES.values()))
    rows = [
        [EDGES[kind][at] if at < len(EDGES[kind]) else None for kind in KINDS]
        for at in range(count)
    ]
    return table({kind: kind for kind in KINDS}, rows)


def rows_of(tables, columns):
    """The rows of several tables as a file with these columns has them."""
    rows = []
    for each in tables:
        names = [column.name for column in each.columns]
        for at in range(each.rows):
            row = {name: values[at] for name, values in zip(names, each.values, strict=True)}
            rows.append([row.get(name) for name in columns])
    return rows


_values = {
    "integer": st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    "number": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "text": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    "time": st.integers(TIME_US - 10, TIME_US + 10) | st.integers(-(10**15), 10**17),
}


@st.composite
def tables(draw):
    """Tables that come one after the other: each has the columns of the one before, and maybe more."""
    columns = {}
    found = []
    for _ in range(draw(st.integers(1, 4))):
        for _ in range(draw(st.integers(0 if columns else 1, 3))):
            columns[f"c{len(columns)}"] = draw(st.sampled_from(KINDS))
        row = st.tuples(*(st.none() | _values[kind] for kind in columns.values()))
        found.append(table(columns, draw(st.lists(row, min_size=1, max_size=8))))
    return found
