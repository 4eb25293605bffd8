//! The actions of ALTER TABLE: the mode is that of the strongest action, as in the server's AlterTableGetLockLevel.

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::{Cause, Gather, LockMode, Loss, Work, losses, syntax};

/// Storage parameters that take the full lock; all others are read the next time somebody looks.
const HEAVY_PARAMETERS: &[&str] = &["user_catalog_table"];

pub(super) fn gather(node: &SyntaxNode, gather: &mut Gather) {
    let Some(table) = syntax::child(node, K::TABLE_RELATION_NAME).and_then(|child| syntax::name(&child)) else {
        // ALL IN TABLESPACE
        gather.facts.unlisted = true;
        return;
    };
    gather.facts.joins = syntax::child(node, K::INHERIT_TABLE).map(|_| table.clone());
    let mut strongest = None;
    for action in node
        .children()
        .filter(|child| child.kind() != K::TABLE_RELATION_NAME && child.kind() != K::IF_EXISTS)
    {
        strongest = strongest.max(Some(one(&action, gather)));
    }
    gather.lock(Some(table), strongest.unwrap_or(LockMode::AccessExclusive));
}

/// One action: what it takes on the table itself. What it takes on others goes into `gather`.
fn one(action: &SyntaxNode, gather: &mut Gather) -> LockMode {
    match action.kind() {
        K::ADD_COLUMN => add_column(action, gather),
        K::ALTER_COLUMN | K::ALTER_SET_STATISTICS => return alter_column(action, gather),
        K::ADD_CONSTRAINT => return add_constraint(action, gather),
        K::VALIDATE_CONSTRAINT => {
            // a foreign key's other table is locked too (ROW SHARE), which nobody waits for
            gather.work(Work::Scan, Cause::Reads);
            return LockMode::ShareUpdateExclusive;
        }
        K::ENABLE_TRIGGER | K::ENABLE_REPLICA_TRIGGER | K::ENABLE_ALWAYS_TRIGGER | K::DISABLE_TRIGGER => {
            return LockMode::ShareRowExclusive;
        }
        K::CLUSTER_ON | K::SET_WITHOUT_CLUSTER => return LockMode::ShareUpdateExclusive,
        K::SET_OPTIONS | K::RESET_OPTIONS => {
            let text = action.text().to_string().to_ascii_lowercase();
            if !HEAVY_PARAMETERS.iter().any(|name| text.contains(name)) {
                return LockMode::ShareUpdateExclusive;
            }
        }
        K::ATTACH_PARTITION => {
            gather.lock(syntax::relation(action), LockMode::AccessExclusive);
            gather.facts.joins = syntax::relation(action);
            gather.work(Work::Scan, Cause::Reads);
            // a default partition is locked and scanned, and foreign keys of the parent reach their tables
            gather.facts.unlisted = true;
            return LockMode::ShareUpdateExclusive;
        }
        K::DETACH_PARTITION => return detach(action, gather),
        K::INHERIT_TABLE => gather.lock(syntax::relation(action), LockMode::ShareUpdateExclusive),
        K::NO_INHERIT_TABLE => gather.lock(syntax::relation(action), LockMode::AccessShare),
        K::SET_LOGGED | K::SET_UNLOGGED | K::SET_ACCESS_METHOD | K::SET_TABLESPACE => {
            gather.work(Work::Rewrite, Cause::Copies)
        }
        K::DROP_COLUMN => gather.loses(Loss::DropColumn),
        // the other table of a foreign key is locked too
        K::DROP_CONSTRAINT | K::ALTER_CONSTRAINT => gather.facts.unlisted = true,
        K::MERGE_PARTITIONS | K::SPLIT_PARTITION => {
            gather.facts.unlisted = true;
            gather.work(Work::Rewrite, Cause::Copies);
        }
        K::RENAME_COLUMN | K::TABLE_RENAME_TO | K::SET_SCHEMA => gather.work(Work::None, Cause::Renames),
        _ => {}
    }
    LockMode::AccessExclusive
}

fn detach(action: &SyntaxNode, gather: &mut Gather) -> LockMode {
    if syntax::holds(action, K::DETACH_CONCURRENTLY) {
        gather.facts.transactional = false;
        gather.lock(syntax::relation(action), LockMode::AccessExclusive);
        return LockMode::ShareUpdateExclusive;
    }
    gather.lock(syntax::relation(action), LockMode::AccessExclusive);
    gather.facts.unlisted = true;
    if syntax::holds(action, K::DETACH_FINALIZE) {
        LockMode::ShareUpdateExclusive
    } else {
        LockMode::AccessExclusive
    }
}

fn add_column(action: &SyntaxNode, gather: &mut Gather) {
    referenced(action, gather);
    if losses::fills_every_row(action) {
        gather.work(Work::Rewrite, Cause::FillsColumn);
    }
    if syntax::holds(action, K::CHECK_CONSTRAINT) {
        gather.work(Work::Scan, Cause::AddsCheck);
    }
    if syntax::holds(action, K::UNIQUE_CONSTRAINT) || syntax::holds(action, K::PRIMARY_KEY_CONSTRAINT) {
        gather.work(Work::Scan, Cause::AddsKey);
    }
}

fn alter_column(action: &SyntaxNode, gather: &mut Gather) -> LockMode {
    let option = action.children().last();
    match option.as_ref().map(SyntaxNode::kind) {
        Some(K::SET_STATISTICS | K::SET_OPTIONS | K::RESET_OPTIONS) => return LockMode::ShareUpdateExclusive,
        Some(K::SET_NOT_NULL) => gather.work(Work::Scan, Cause::SetsNotNull),
        Some(K::SET_EXPRESSION) => gather.work(Work::Rewrite, Cause::FillsColumn),
        Some(K::SET_TYPE) => {
            gather.work(Work::Rewrite, Cause::ChangesType);
            let column = syntax::child(action, K::COLUMN_NAME_REF).map(|column| column.text().to_string());
            let column = column.unwrap_or_default();
            if option.is_some_and(|option| losses::may_narrow(&option, column.trim())) {
                gather.loses(Loss::NarrowType);
            }
        }
        _ => {}
    }
    LockMode::AccessExclusive
}

fn add_constraint(action: &SyntaxNode, gather: &mut Gather) -> LockMode {
    referenced(action, gather);
    let unchecked = syntax::holds(action, K::NOT_VALID) || syntax::holds(action, K::USING_INDEX_NAME);
    let causes = [
        (K::FOREIGN_KEY_CONSTRAINT, Cause::AddsForeignKey),
        (K::CHECK_CONSTRAINT, Cause::AddsCheck),
        (K::UNIQUE_CONSTRAINT, Cause::AddsKey),
        (K::PRIMARY_KEY_CONSTRAINT, Cause::AddsKey),
        (K::EXCLUDE_CONSTRAINT, Cause::AddsKey),
    ];
    for (kind, cause) in causes {
        if !unchecked && syntax::holds(action, kind) {
            gather.work(Work::Scan, cause);
        }
    }
    if syntax::holds(action, K::FOREIGN_KEY_CONSTRAINT) {
        LockMode::ShareRowExclusive
    } else {
        LockMode::AccessExclusive
    }
}

/// The tables that foreign keys below a node point to: a trigger is made on each.
pub(super) fn referenced(node: &SyntaxNode, gather: &mut Gather) {
    for key in node.descendants() {
        if matches!(key.kind(), K::FOREIGN_KEY_CONSTRAINT | K::REFERENCES_CONSTRAINT) {
            let table = syntax::child(&key, K::TABLE_NAME_REF).and_then(|child| syntax::name(&child));
            gather.lock(table, LockMode::ShareRowExclusive);
        }
    }
}
