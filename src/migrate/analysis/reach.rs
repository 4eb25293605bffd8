//! What a statement that loses data names: from there the catalog tells which tables lose something. Pure.

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::{LockMode, TableName, statement, syntax};

/// Something that goes, or loses rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    Relation(TableName),
    Type(TableName),
    Schema(String),
    Extension(String),
}

/// What becomes of tables whose foreign keys point at the one that loses rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keys {
    /// They keep their rows.
    #[default]
    Stay,
    /// They lose theirs where the key says so (ON DELETE CASCADE, SET NULL...).
    Act,
    /// They lose all (TRUNCATE CASCADE).
    Follow,
}

/// What a statement names of what it loses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    Objects(Vec<Object>, Keys),
    /// More than can be read from its text.
    Everything,
    /// Another database, which no dump of this one has.
    AnotherDatabase,
}

/// Of a statement that is known to lose data.
pub fn reach(sql: &str) -> Reach {
    let Some(node) = syntax::statement(sql) else {
        return Reach::Everything;
    };
    let relations = |keys| {
        let names = syntax::references(&node).map(|relation| syntax::name(&relation).map(Object::Relation));
        named(names, keys)
    };
    match node.kind() {
        K::DROP_TABLE | K::DROP_FOREIGN_TABLE | K::DROP_SEQUENCE | K::DROP_VIEW | K::DROP_MATERIALIZED_VIEW => {
            relations(Keys::Stay)
        }
        K::TRUNCATE => relations(match syntax::child(&node, K::CASCADE) {
            Some(_) => Keys::Follow,
            None => Keys::Stay,
        }),
        K::ALTER_TABLE => {
            let table = syntax::child(&node, K::TABLE_RELATION_NAME).and_then(|child| syntax::name(&child));
            named(std::iter::once(table.map(Object::Relation)), Keys::Stay)
        }
        K::DROP_SCHEMA => words(&node, K::SCHEMA_REF, Object::Schema),
        K::DROP_EXTENSION => words(&node, K::EXTENSION_REF, Object::Extension),
        K::DROP_TYPE | K::ALTER_TYPE => types(&node, K::TYPE_NAME_REF),
        K::DROP_DOMAIN => types(&node, K::DOMAIN_REF),
        K::DROP_DATABASE => Reach::AnotherDatabase,
        // what depends on these has no rows
        K::DROP_INDEX | K::DROP_TRIGGER | K::DROP_RULE | K::DROP_POLICY => Reach::Objects(Vec::new(), Keys::Stay),
        K::DELETE | K::UPDATE | K::INSERT | K::MERGE | K::SELECT | K::EXPLAIN | K::PREPARE => changed(&node),
        _ => Reach::Everything,
    }
}

/// The tables whose rows a query changes.
fn changed(node: &SyntaxNode) -> Reach {
    let locks = statement::facts(node).locks.into_iter();
    let written = locks.filter(|(_, mode)| *mode == LockMode::RowExclusive);
    named(written.map(|(name, _)| Some(Object::Relation(name))), Keys::Act)
}

fn types(node: &SyntaxNode, kind: K) -> Reach {
    named(
        syntax::children(node, kind).map(|one| syntax::name(&one).map(Object::Type)),
        Keys::Stay,
    )
}

/// Names that no schema can stand before.
fn words(node: &SyntaxNode, kind: K, object: impl Fn(String) -> Object) -> Reach {
    let word = |one: SyntaxNode| {
        let text = one.text().to_string();
        let text = text.trim();
        object(match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => text.to_ascii_lowercase(),
        })
    };
    named(syntax::children(node, kind).map(|one| Some(word(one))), Keys::Stay)
}

/// All of them, or nobody knows.
fn named(objects: impl Iterator<Item = Option<Object>>, keys: Keys) -> Reach {
    match objects.collect::<Option<Vec<_>>>() {
        Some(objects) if !objects.is_empty() => Reach::Objects(objects, keys),
        _ => Reach::Everything,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_named_or_said_to_be_more() {
        let table = |name: &str| {
            Object::Relation(TableName {
                schema: None,
                name: name.to_owned(),
            })
        };
        let of_s = |name: &str| TableName {
            schema: Some("S".into()),
            name: name.to_owned(),
        };
        let cases = [
            ("DROP TABLE A, \"B\"", vec![table("a"), table("B")], Keys::Stay),
            (
                "DROP TABLE IF EXISTS \"S\".t CASCADE",
                vec![Object::Relation(of_s("t"))],
                Keys::Stay,
            ),
            ("TRUNCATE a, b", vec![table("a"), table("b")], Keys::Stay),
            ("TRUNCATE a CASCADE", vec![table("a")], Keys::Follow),
            ("ALTER TABLE a DROP COLUMN x", vec![table("a")], Keys::Stay),
            ("ALTER TABLE a ALTER c TYPE int", vec![table("a")], Keys::Stay),
            ("DELETE FROM a", vec![table("a")], Keys::Act),
            ("UPDATE a SET x = b.x FROM b", vec![table("a")], Keys::Act),
            (
                "WITH gone AS (DELETE FROM a RETURNING *) SELECT * FROM gone",
                vec![table("a")],
                Keys::Act,
            ),
            ("DROP SEQUENCE a", vec![table("a")], Keys::Stay),
            (
                "DROP SCHEMA a, \"B\" CASCADE",
                vec![Object::Schema("a".into()), Object::Schema("B".into())],
                Keys::Stay,
            ),
            ("DROP TYPE \"S\".mood", vec![Object::Type(of_s("mood"))], Keys::Stay),
            (
                "DROP EXTENSION IF EXISTS \"uuid-ossp\"",
                vec![Object::Extension("uuid-ossp".into())],
                Keys::Stay,
            ),
            ("DROP INDEX i CASCADE", vec![], Keys::Stay),
            ("EXPLAIN ANALYZE DELETE FROM a", vec![table("a")], Keys::Act),
            ("PREPARE p AS UPDATE a SET x = 1", vec![table("a")], Keys::Act),
            (
                "ALTER TYPE \"S\".addr DROP ATTRIBUTE zip",
                vec![Object::Type(of_s("addr"))],
                Keys::Stay,
            ),
        ];
        for (sql, objects, keys) in cases {
            assert_eq!(reach(sql), Reach::Objects(objects, keys), "{sql}");
        }
        for sql in ["DROP OWNED BY r", "DROP FUNCTION f(int) CASCADE", "no sql at all"] {
            assert_eq!(reach(sql), Reach::Everything, "{sql}");
        }
        assert_eq!(reach("DROP DATABASE d"), Reach::AnotherDatabase);
    }
}
