//! CREATE: what a new thing takes on the tables it stands on.

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::{Cause, Gather, LockMode, Rows, TableName, Work, alter_table, query::read, statement::on_relation, syntax};

pub(super) fn creates(node: &SyntaxNode, kind: K, gather: &mut Gather) -> bool {
    match kind {
        K::CREATE_TABLE | K::CREATE_FOREIGN_TABLE => create_table(node, gather),
        K::CREATE_TABLE_AS | K::SELECT_INTO => {
            makes(node, gather);
            read(node, gather);
        }
        K::CREATE_VIEW | K::CREATE_MATERIALIZED_VIEW => {
            makes(node, gather);
            if kind == K::CREATE_VIEW {
                // a temporary one hides what it is a view of, perhaps
                gather.facts.creates = gather.facts.creates.take().filter(|_| gather.facts.rows == Rows::Own);
                gather.facts.rows = Rows::Elsewhere;
            }
            read(node, gather);
            if syntax::child(node, K::OR_REPLACE).is_some() {
                gather.lock(syntax::new_name(node), LockMode::AccessExclusive);
            }
        }
        K::CREATE_INDEX => {
            let concurrently = syntax::keyword(node, K::CONCURRENTLY_KW);
            gather.facts.transactional = !concurrently;
            let mode = if concurrently {
                LockMode::ShareUpdateExclusive
            } else {
                LockMode::Share
            };
            gather.lock(syntax::relation(node), mode);
            let cause = if concurrently { Cause::Reads } else { Cause::BuildsIndex };
            gather.work(Work::Scan, cause);
        }
        K::CREATE_TRIGGER => {
            gather.lock(on_relation(node), LockMode::ShareRowExclusive);
            if let Some(from) = syntax::child(node, K::FROM_TABLE) {
                gather.lock(syntax::relation(&from), LockMode::AccessShare);
            }
        }
        K::CREATE_RULE => {
            gather.lock(on_relation(node), LockMode::AccessExclusive);
            read(node, gather);
        }
        K::CREATE_POLICY => {
            gather.lock(on_relation(node), LockMode::AccessExclusive);
            read(node, gather);
        }
        K::CREATE_STATISTICS => gather.lock(syntax::relation(node), LockMode::ShareUpdateExclusive),
        K::CREATE_SEQUENCE => {
            makes(node, gather);
            gather.facts.unlisted = syntax::holds(node, K::QUALIFIED_COLUMN_NAME_REF);
        }
        K::CREATE_DATABASE | K::CREATE_TABLESPACE | K::CREATE_SUBSCRIPTION => gather.facts.transactional = false,
        K::CREATE_TYPE
        | K::CREATE_DOMAIN
        | K::CREATE_AGGREGATE
        | K::CREATE_ROLE
        | K::CREATE_USER
        | K::CREATE_GROUP
        | K::CREATE_COLLATION
        | K::CREATE_CAST
        | K::CREATE_OPERATOR => {}
        // a schema's elements, an extension's script: not looked into
        K::CREATE_SCHEMA => {
            gather.facts.unlisted = node.children().any(|c| format!("{:?}", c.kind()).starts_with("CREATE"))
        }
        _ => return false,
    }
    true
}

/// The name, unless something of that name may be there already, with rows and users.
fn surely_new(node: &SyntaxNode) -> Option<TableName> {
    let perhaps = [K::IF_NOT_EXISTS, K::OR_REPLACE];
    let new = !perhaps.iter().any(|&kind| syntax::child(node, kind).is_some());
    syntax::new_name(node).filter(|_| new)
}

/// What is made, and where its rows are.
fn makes(node: &SyntaxNode, gather: &mut Gather) {
    let name = surely_new(node);
    let temporary = |found: &SyntaxNode| syntax::child(found, K::TEMP).is_some();
    let into = syntax::child(node, K::INTO_CLAUSE);
    let in_session = name
        .as_ref()
        .is_some_and(|name| name.schema.as_deref() == Some("pg_temp"));
    let drops = |commit: SyntaxNode| commit.text().to_string().to_ascii_lowercase().contains("drop");
    gather.facts.creates = name;
    if syntax::child(node, K::ON_COMMIT).is_some_and(drops) {
        gather.facts.rows = Rows::Transaction;
    } else if in_session || temporary(node) || into.as_ref().is_some_and(temporary) {
        gather.facts.rows = Rows::Session;
    }
}

fn create_table(node: &SyntaxNode, gather: &mut Gather) {
    makes(node, gather);
    if node.kind() == K::CREATE_FOREIGN_TABLE {
        gather.facts.rows = Rows::Elsewhere;
    }
    alter_table::referenced(node, gather);
    if let Some(parent) = syntax::child(node, K::PARTITION_OF) {
        gather.lock(syntax::relation(&parent), LockMode::AccessExclusive);
        // a default partition, and the tables that the parent's foreign keys point to
        gather.facts.unlisted = true;
    }
    if let Some(parents) = syntax::child(node, K::INHERITS) {
        for parent in syntax::references(&parents) {
            gather.lock(syntax::name(&parent), LockMode::ShareUpdateExclusive);
        }
    }
    for like in node.descendants().filter(|inner| inner.kind() == K::LIKE_CLAUSE) {
        gather.lock(syntax::relation(&like), LockMode::AccessShare);
    }
    // a table does not wait for itself
    if let Some(own) = syntax::new_name(node) {
        gather.locks.remove(&own);
    }
}
