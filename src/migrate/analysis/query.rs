//! Queries and what changes rows.

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::{Gather, LockMode, Loss, TableName, maintain::option, statement, syntax};

pub(super) fn queries(node: &SyntaxNode, kind: K, gather: &mut Gather) -> bool {
    match kind {
        K::SELECT | K::COMPOUND_SELECT | K::PAREN_SELECT | K::TABLE | K::VALUES => {
            // a function may do anything
            gather.facts.unlisted = syntax::holds(node, K::CALL_EXPR);
            read(node, gather);
        }
        K::INSERT | K::UPDATE | K::DELETE | K::MERGE => read(node, gather),
        K::EXPLAIN | K::PREPARE => {
            let Some(inner) = syntax::inner(node) else { return false };
            statement::by_kind(&inner, gather);
            // it stays in the session, or comes more than once: what it does is not all that happens
            gather.facts.unlisted = true;
            gather.facts.creates = None;
            if kind == K::EXPLAIN && !analyzes(node) {
                gather.facts.destructive = None;
            }
        }
        K::COPY => {
            let writes = syntax::child(node, K::COPY_FROM).is_some();
            let mode = if writes {
                LockMode::RowExclusive
            } else {
                LockMode::AccessShare
            };
            match syntax::child(node, K::COPY_TABLE) {
                Some(table) => gather.lock(syntax::relation(&table), mode),
                None => read(node, gather),
            }
        }
        _ => return false,
    }
    true
}

/// Whether EXPLAIN runs what it explains.
fn analyzes(node: &SyntaxNode) -> bool {
    syntax::child(node, K::EXPLAIN_ANALYZE).is_some() || option(node, "analyze") || option(node, "analyse")
}

/// A query with everything in it: what it reads, what it changes, the rows it locks.
pub(super) fn read(node: &SyntaxNode, gather: &mut Gather) {
    let own: Vec<String> = node
        .descendants()
        .filter(|inner| inner.kind() == K::CTE_NAME)
        .map(|inner| inner.text().to_string().trim_matches('"').to_ascii_lowercase())
        .collect();
    let is_own = |name: &TableName| name.schema.is_none() && own.contains(&name.name.to_ascii_lowercase());
    let row_share = syntax::holds(node, K::LOCKING_CLAUSE);
    let weakest = if row_share {
        LockMode::RowShare
    } else {
        LockMode::AccessShare
    };
    for reference in syntax::references(node) {
        if let Some(name) = syntax::name(&reference).filter(|name| !is_own(name)) {
            gather.lock(Some(name), weakest);
        }
    }
    for change in node.descendants() {
        let (loss, whole) = match change.kind() {
            K::DELETE => (Some(Loss::DeleteAll), true),
            K::UPDATE => (Some(Loss::UpdateAll), true),
            K::INSERT | K::MERGE => (None, false),
            _ => continue,
        };
        gather.lock(target(&change), LockMode::RowExclusive);
        let limited = [K::WHERE_CLAUSE, K::WHERE_CURRENT_OF]
            .iter()
            .any(|&kind| syntax::child(&change, kind).is_some());
        if let (Some(loss), true, false) = (loss, whole, limited) {
            gather.loses(loss);
        }
    }
}

/// The table that an INSERT, UPDATE, DELETE or MERGE changes: the first reference that is not in its WITH.
fn target(change: &SyntaxNode) -> Option<TableName> {
    change
        .children()
        .find(|child| {
            matches!(
                child.kind(),
                K::RELATION_NAME_REF | K::RELATION_NAME | K::TABLE_RELATION_NAME
            )
        })
        .and_then(|child| syntax::name(&child))
}
