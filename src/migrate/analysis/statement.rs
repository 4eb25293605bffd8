//! One statement by its kind: the manual's page of each command, as a table.

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::{
    Cause, Gather, LockMode, Loss, Rows, StatementFacts, TableName, Work, alter_table, create, losses, maintain,
    outside,
    query::{self, read},
    remove, syntax,
};

pub(super) fn facts(node: &SyntaxNode) -> StatementFacts {
    let mut gather = Gather::default();
    gather.facts.kind = format!("{:?}", node.kind()).replace('_', " ");
    by_kind(node, &mut gather);
    gather.facts.renames = renames(node);
    if let Some(name) = new_name(node).filter(|_| gather.facts.renames) {
        gather.facts.creates = Some(name);
        gather.facts.rows = Rows::Renamed;
    }
    if !gather.facts.transactional {
        gather.facts.outside = outside::of(node);
    }
    gather.finish()
}

/// Of the statement itself, or of the one that it explains or prepares.
pub(super) fn by_kind(node: &SyntaxNode, gather: &mut Gather) {
    match node.kind() {
        K::ALTER_TABLE => alter_table::gather(node, gather),
        kind if create::creates(node, kind, gather) => {}
        kind if remove::drops(node, kind, gather) => {}
        kind if alters(node, kind, gather) => {}
        kind if maintain::maintains(node, kind, gather) => {}
        kind if query::queries(node, kind, gather) => {}
        kind => gather.facts.unlisted = !is_harmless(kind),
    }
}

/// Whether a relation, or the schema of some, gets another name. Indexes do not count: nobody loses rows by their names.
fn renames(node: &SyntaxNode) -> bool {
    let relations = [
        K::ALTER_TABLE,
        K::ALTER_VIEW,
        K::ALTER_MATERIALIZED_VIEW,
        K::ALTER_FOREIGN_TABLE,
        K::ALTER_SEQUENCE,
        K::ALTER_SCHEMA,
    ];
    let moves = |child: SyntaxNode| matches!(child.kind(), K::SCHEMA_RENAME_TO | K::SET_SCHEMA);
    relations.contains(&node.kind()) && (new_name(node).is_some() || node.children().any(moves))
}

/// The name that a relation is given.
fn new_name(node: &SyntaxNode) -> Option<TableName> {
    let ways = [K::TABLE_RENAME_TO, K::VIEW_RENAME_TO, K::SEQUENCE_RENAME_TO];
    let rename = node.children().find(|child| ways.contains(&child.kind()))?;
    syntax::new_name(&rename)
}

/// What neither takes a table's lock nor can run anything else.
fn is_harmless(kind: K) -> bool {
    let kind = format!("{kind:?}");
    let harmless = [
        "SET",
        "RESET",
        "SHOW",
        "SAVEPOINT",
        "RELEASE",
        "ROLLBACK",
        "GRANT",
        "REVOKE",
        "COMMENT",
        "LISTEN",
        "NOTIFY",
        "UNLISTEN",
        "DEALLOCATE",
        "DISCARD",
        "CHECKPOINT",
    ];
    let objects = [
        "FUNCTION",
        "PROCEDURE",
        "ROUTINE",
        "ROLE",
        "USER",
        "GROUP",
        "SCHEMA",
        "DEFAULT_PRIVILEGES",
    ];
    let object = kind
        .strip_prefix("ALTER_")
        .is_some_and(|object| objects.contains(&object));
    object || harmless.iter().any(|word| kind.split('_').next() == Some(word))
}

/// The relation after ON.
pub(super) fn on_relation(node: &SyntaxNode) -> Option<TableName> {
    let on = node
        .children()
        .find(|child| matches!(child.kind(), K::ON_TABLE | K::ON_RELATION | K::RULE_ON))?;
    syntax::relation(&on)
}

fn alters(node: &SyntaxNode, kind: K, gather: &mut Gather) -> bool {
    match kind {
        K::ALTER_SEQUENCE => gather.lock(syntax::relation(node), LockMode::ShareRowExclusive),
        K::ALTER_VIEW | K::ALTER_MATERIALIZED_VIEW | K::ALTER_FOREIGN_TABLE => {
            gather.lock(syntax::relation(node), LockMode::AccessExclusive);
        }
        K::ALTER_POLICY => {
            gather.lock(on_relation(node), LockMode::AccessExclusive);
            read(node, gather);
        }
        K::ALTER_TRIGGER | K::ALTER_RULE => gather.lock(on_relation(node), LockMode::AccessExclusive),
        K::ALTER_INDEX => {
            // only the index itself is locked, which queries hold too
            gather.facts.unlisted = true;
        }
        K::ALTER_TYPE => {
            gather.facts.adds_value = node
                .descendants()
                .find(|inner| inner.kind() == K::ADD_VALUE)
                .and_then(|add| syntax::child(&add, K::LITERAL))
                .map(|literal| literal.text().to_string().trim().to_owned());
            // attributes of a composite type reach the tables of that type
            if let Some(actions) = syntax::child(node, K::ALTER_TYPE_ATTRIBUTE_ACTION_LIST) {
                gather.facts.unlisted = true;
                attributes(&actions, gather);
            }
        }
        K::ALTER_DOMAIN => {
            // every column of the domain
            gather.facts.unlisted = true;
            gather.work(Work::Scan, Cause::Reads);
        }
        K::ALTER_SYSTEM => gather.facts.transactional = false,
        K::ALTER_DATABASE => gather.facts.transactional = !syntax::holds(node, K::SET_TABLESPACE),
        K::ALTER_SUBSCRIPTION => gather.facts.unlisted = true,
        _ => return false,
    }
    true
}

/// Attributes of a composite type are in the columns of that type.
fn attributes(actions: &SyntaxNode, gather: &mut Gather) {
    for action in actions.children() {
        match action.kind() {
            K::DROP_ATTRIBUTE => gather.loses(Loss::DropColumn),
            K::ALTER_ATTRIBUTE if losses::may_narrow(&action, "") => gather.loses(Loss::NarrowType),
            _ => {}
        }
    }
}
