//! Statements that no transaction holds, by what the catalog shows of them afterwards: what a runner that was killed in
//! the middle needs to know.

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::{TableName, syntax};

/// What such a statement makes or takes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    /// CREATE INDEX CONCURRENTLY; without a name the server finds one. The index is in the table's schema.
    BuildsIndex {
        index: Option<String>,
        table: TableName,
    },
    /// REINDEX INDEX CONCURRENTLY.
    RebuildsIndex(TableName),
    /// REINDEX TABLE CONCURRENTLY.
    RebuildsTable(TableName),
    /// DROP INDEX CONCURRENTLY.
    DropsIndex(TableName),
    /// ALTER TABLE ... DETACH PARTITION ... CONCURRENTLY.
    Detaches {
        parent: TableName,
        partition: TableName,
    },
    MakesDatabase(String),
    DropsDatabase(String),
}

/// None: it leaves nothing that would tell, and running it again is all that can be done.
pub(super) fn of(node: &SyntaxNode) -> Option<Outside> {
    Some(match node.kind() {
        K::CREATE_INDEX => Outside::BuildsIndex {
            index: syntax::child(node, K::INDEX)
                .and_then(|_| syntax::new_name(node))
                .map(|name| name.name),
            table: syntax::relation(node)?,
        },
        K::DROP_INDEX => Outside::DropsIndex(index(node)?),
        K::REINDEX => {
            let target = node.children().find(|child| child.kind() != K::REINDEX_OPTION_LIST)?;
            match target.kind() {
                K::REINDEX_TARGET_INDEX => Outside::RebuildsIndex(index(&target)?),
                K::REINDEX_TARGET_TABLE => Outside::RebuildsTable(syntax::relation(&target)?),
                _ => return None,
            }
        }
        K::ALTER_TABLE => Outside::Detaches {
            parent: syntax::child(node, K::TABLE_RELATION_NAME).and_then(|child| syntax::name(&child))?,
            partition: syntax::child(node, K::DETACH_PARTITION).and_then(|child| syntax::relation(&child))?,
        },
        K::CREATE_DATABASE => Outside::MakesDatabase(database(node, K::DATABASE)?),
        K::DROP_DATABASE => Outside::DropsDatabase(database(node, K::DATABASE_REF)?),
        _ => return None,
    })
}

fn index(node: &SyntaxNode) -> Option<TableName> {
    syntax::child(node, K::INDEX_REF).and_then(|index| syntax::name(&index))
}

/// Folded the way the server does.
fn database(node: &SyntaxNode, kind: K) -> Option<String> {
    let text = syntax::child(node, kind)?.text().to_string();
    let text = text.trim();
    Some(match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => text.to_ascii_lowercase(),
    })
}
