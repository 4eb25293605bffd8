//! What a type or a default means for the rows that are there.

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::{body::plain, syntax};

/// Types that hold whatever a column of another type is likely to have had. Everything else may be narrower. What the column has been only the catalog
/// knows: `bigint` is here because it has been an `int` as good as always, though a `numeric` would be rounded; `double precision` is not.
const WIDE: &[&str] = &[
    "text",
    "varchar",
    "character varying",
    "numeric",
    "decimal",
    "bigint",
    "int8",
    "timestamptz",
    "timestamp with time zone",
    "json",
    "jsonb",
    "bytea",
    "interval",
];
/// Types whose values AT TIME ZONE makes of each other.
const IN_ZONE: &[&str] = &[
    "timestamptz",
    "timestamp with time zone",
    "timestamp",
    "timestamp without time zone",
];
/// Functions whose value has all that was in their argument.
const TO_JSON: &[&str] = &["to_json", "to_jsonb"];
/// Types whose columns are numbered from a sequence.
const SERIAL: &[&str] = &["serial", "serial2", "serial4", "serial8", "smallserial", "bigserial"];
/// Functions whose value is the same for every row of one statement.
const STEADY: &[&str] = &[
    "now",
    "transaction_timestamp",
    "statement_timestamp",
    "current_setting",
    "jsonb_build_object",
    "jsonb_build_array",
    "json_build_object",
    "json_build_array",
    "to_timestamp",
    "make_interval",
    "make_date",
    "lower",
    "upper",
    "concat",
    "coalesce",
    "md5",
    "encode",
    "decode",
    "array_fill",
    "to_jsonb",
    "current_schema",
];

/// Whether an ADD COLUMN gives each row a value of its own: a sequence, a generated value, a volatile default.
pub(super) fn fills_every_row(column: &SyntaxNode) -> bool {
    let serial = type_of(column).is_some_and(|name| SERIAL.contains(&name.as_str()));
    serial
        || syntax::holds(column, K::GENERATED_STORED)
        || syntax::holds(column, K::GENERATED_IDENTITY)
        || defaults(column).any(|default| default.descendants().any(|call| is_volatile(&call)))
}

fn defaults(column: &SyntaxNode) -> impl Iterator<Item = SyntaxNode> {
    column.descendants().filter(|node| node.kind() == K::DEFAULT_CONSTRAINT)
}

/// A call of a function that is not known to be steady: one that we do not know may be volatile.
fn is_volatile(node: &SyntaxNode) -> bool {
    node.kind() == K::CALL_EXPR && {
        let text = node.text().to_string().to_ascii_lowercase();
        let name = text.split('(').next().unwrap_or_default().trim();
        !STEADY.contains(&name.rsplit('.').next().unwrap_or(name))
    }
}

/// Whether SET DATA TYPE goes to a type that may hold less, or through an expression that may lose something: any but a cast of the column, or what
/// makes a moment of it in a zone that is written out.
pub(super) fn may_narrow(set_type: &SyntaxNode, column: &str) -> bool {
    let using = syntax::child(set_type, K::USING_EXPR).and_then(|using| using.children().next());
    let to_moment = type_of(set_type).is_some_and(|name| IN_ZONE.contains(&name.as_str()));
    if let Some(moment) = using.as_ref().filter(|_| to_moment).and_then(in_zone) {
        return !only_casts(&moment, column);
    }
    let computes = using.is_some_and(|using| !only_casts(&using, column));
    computes || !is_wide(set_type)
}

fn is_wide(node: &SyntaxNode) -> bool {
    type_of(node).is_some_and(|name| WIDE.contains(&name.as_str()))
}

/// `column`, `table.column`, `column::type`, `CAST(column AS type)`, `to_jsonb(column)`; what casts to less on its way loses it there.
fn only_casts(expression: &SyntaxNode, column: &str) -> bool {
    let casts = |inner: Option<SyntaxNode>| inner.is_some_and(|inner| only_casts(&inner, column));
    match expression.kind() {
        K::NAME_REF => plain(expression.text().to_string().trim()) == plain(column),
        K::FIELD_EXPR => {
            let mut parts = expression.descendants();
            let names = parts.all(|part| matches!(part.kind(), K::NAME_REF | K::FIELD_EXPR));
            names && casts(expression.children().last())
        }
        K::PAREN_EXPR => casts(expression.children().next()),
        K::CAST_EXPR => is_wide(expression) && casts(expression.children().next()),
        K::CALL_EXPR => casts(to_json(expression)),
        _ => false,
    }
}

/// What is put into a zone: `value AT TIME ZONE 'zone'`.
fn in_zone(expression: &SyntaxNode) -> Option<SyntaxNode> {
    let parts: Vec<SyntaxNode> = expression.children().collect();
    match (expression.kind(), parts.as_slice()) {
        (K::PAREN_EXPR, [inner]) => in_zone(inner),
        (K::BIN_EXPR, [value, at, zone]) => {
            (at.kind() == K::AT_TIME_ZONE && zone.kind() == K::LITERAL).then(|| value.clone())
        }
        _ => None,
    }
}

/// What a call makes JSON of, if it does that.
fn to_json(call: &SyntaxNode) -> Option<SyntaxNode> {
    let name = syntax::child(call, K::NAME_REF)?.text().to_string();
    let argument = syntax::child(call, K::ARG_LIST)?.children().next()?;
    let value = argument.children().next();
    value.filter(|_| TO_JSON.contains(&plain(name.trim()).as_str()))
}

/// A type as it is written, in one case and with single spaces.
fn type_of(node: &SyntaxNode) -> Option<String> {
    let found = node.children().find(|child| {
        matches!(
            child.kind(),
            K::PATH_TYPE
                | K::VARCHAR_TYPE
                | K::CHARACTER_TYPE
                | K::BIT_TYPE
                | K::BIT_VARYING_TYPE
                | K::DOUBLE_TYPE
                | K::TIME_TYPE
                | K::TIMESTAMP_TYPE
                | K::INTERVAL_TYPE
                | K::ARRAY_TYPE
        )
    })?;
    let text = found.text().to_string().to_ascii_lowercase();
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}
