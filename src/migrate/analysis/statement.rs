//! One statement by its kind: the manual's page of each command, as a table.

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::{Cause, Gather, LockMode, Loss, StatementFacts, TableName, Work, alter_table, syntax};

pub(super) fn facts(node: &SyntaxNode) -> StatementFacts {
    let mut gather = Gather::default();
    gather.facts.kind = format!("{:?}", node.kind()).replace('_', " ");
    match node.kind() {
        K::ALTER_TABLE => alter_table::gather(node, &mut gather),
        kind if creates(node, kind, &mut gather) => {}
        kind if drops(node, kind, &mut gather) => {}
        kind if alters(node, kind, &mut gather) => {}
        kind if maintains(node, kind, &mut gather) => {}
        kind if queries(node, kind, &mut gather) => {}
        kind => gather.facts.unlisted = !is_harmless(kind),
    }
    gather.finish()
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

fn on_relation(node: &SyntaxNode) -> Option<TableName> {
    let on = node
        .children()
        .find(|child| matches!(child.kind(), K::ON_TABLE | K::ON_RELATION | K::RULE_ON))?;
    syntax::relation(&on)
}

fn creates(node: &SyntaxNode, kind: K, gather: &mut Gather) -> bool {
    match kind {
        K::CREATE_TABLE | K::CREATE_FOREIGN_TABLE => create_table(node, gather),
        K::CREATE_TABLE_AS | K::SELECT_INTO => {
            gather.facts.creates = syntax::new_name(node);
            read(node, gather);
        }
        K::CREATE_VIEW | K::CREATE_MATERIALIZED_VIEW => {
            gather.facts.creates = syntax::new_name(node);
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
            gather.facts.creates = syntax::new_name(node);
            gather.facts.unlisted = syntax::holds(node, K::QUALIFIED_COLUMN_NAME_REF);
        }
        K::CREATE_DATABASE | K::CREATE_TABLESPACE | K::CREATE_SUBSCRIPTION => gather.facts.transactional = false,
        K::CREATE_FUNCTION
        | K::CREATE_PROCEDURE
        | K::CREATE_TYPE
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

fn create_table(node: &SyntaxNode, gather: &mut Gather) {
    gather.facts.creates = syntax::new_name(node);
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
    if let Some(own) = &gather.facts.creates {
        gather.locks.remove(own);
    }
}

fn drops(node: &SyntaxNode, kind: K, gather: &mut Gather) -> bool {
    let loss = match kind {
        K::DROP_TABLE | K::DROP_FOREIGN_TABLE => Some(Loss::DropTable),
        K::DROP_SEQUENCE => Some(Loss::DropSequence),
        K::DROP_SCHEMA => Some(Loss::DropSchema),
        K::DROP_DATABASE => Some(Loss::DropDatabase),
        K::DROP_TYPE | K::DROP_DOMAIN => Some(Loss::DropType),
        K::DROP_EXTENSION => Some(Loss::DropExtension),
        K::DROP_OWNED => Some(Loss::DropOwned),
        K::DROP_VIEW
        | K::DROP_MATERIALIZED_VIEW
        | K::DROP_INDEX
        | K::DROP_TRIGGER
        | K::DROP_RULE
        | K::DROP_POLICY
        | K::DROP_FUNCTION
        | K::DROP_PROCEDURE
        | K::DROP_ROUTINE
        | K::DROP_AGGREGATE
        | K::DROP_STATISTICS
        | K::DROP_ROLE
        | K::DROP_USER
        | K::DROP_GROUP
        | K::DROP_TABLESPACE
        | K::DROP_SUBSCRIPTION => None,
        _ => return false,
    };
    if let Some(loss) = loss {
        gather.loses(loss);
    }
    let cascades = syntax::child(node, K::CASCADE).is_some();
    if cascades {
        gather.loses(Loss::Cascade);
    }
    match kind {
        K::DROP_TRIGGER | K::DROP_RULE | K::DROP_POLICY => gather.lock(on_relation(node), LockMode::AccessExclusive),
        K::DROP_INDEX => {
            let concurrently = syntax::keyword(node, K::CONCURRENTLY_KW);
            gather.facts.transactional = !concurrently;
            let mode = if concurrently {
                LockMode::ShareUpdateExclusive
            } else {
                LockMode::AccessExclusive
            };
            for index in syntax::children(node, K::INDEX_REF) {
                gather.lock_index(syntax::name(&index), mode);
            }
        }
        K::DROP_DATABASE | K::DROP_TABLESPACE | K::DROP_SUBSCRIPTION => gather.facts.transactional = false,
        K::DROP_TABLE | K::DROP_FOREIGN_TABLE | K::DROP_VIEW | K::DROP_MATERIALIZED_VIEW | K::DROP_SEQUENCE => {
            for relation in syntax::references(node) {
                gather.lock(syntax::name(&relation), LockMode::AccessExclusive);
            }
            // a table's foreign keys reach the tables they point to
            gather.facts.unlisted = kind == K::DROP_TABLE;
        }
        _ => {}
    }
    gather.facts.unlisted |= cascades || matches!(kind, K::DROP_SCHEMA | K::DROP_EXTENSION | K::DROP_OWNED);
    true
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
            gather.facts.usable_after_commit = syntax::holds(node, K::ADD_VALUE);
            // attributes of a composite type reach the tables of that type
            gather.facts.unlisted = syntax::holds(node, K::ALTER_TYPE_ATTRIBUTE_ACTION_LIST);
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

fn maintains(node: &SyntaxNode, kind: K, gather: &mut Gather) -> bool {
    match kind {
        K::TRUNCATE => {
            gather.loses(Loss::Truncate);
            gather.facts.unlisted = syntax::child(node, K::CASCADE).is_some();
            each(node, LockMode::AccessExclusive, gather);
        }
        K::ANALYZE => {
            gather.facts.unlisted = syntax::relation(node).is_none();
            each(node, LockMode::ShareUpdateExclusive, gather);
        }
        K::VACUUM => {
            let full = syntax::keyword(node, K::FULL_KW) || option(node, "full");
            gather.facts.transactional = false;
            gather.facts.unlisted = syntax::relation(node).is_none();
            let (work, cause) = if full {
                (Work::Rewrite, Cause::Copies)
            } else {
                (Work::Scan, Cause::Reads)
            };
            gather.work(work, cause);
            let mode = if full {
                LockMode::AccessExclusive
            } else {
                LockMode::ShareUpdateExclusive
            };
            each(node, mode, gather);
        }
        K::CLUSTER => {
            gather.work(Work::Rewrite, Cause::Copies);
            match syntax::relation(node) {
                Some(table) => gather.lock(Some(table), LockMode::AccessExclusive),
                None => (gather.facts.transactional, gather.facts.unlisted) = (false, true),
            }
        }
        K::REFRESH => {
            let concurrently = syntax::keyword(node, K::CONCURRENTLY_KW);
            let mode = if concurrently {
                LockMode::Exclusive
            } else {
                LockMode::AccessExclusive
            };
            gather.lock(syntax::relation(node), mode);
            gather.work(Work::Rewrite, Cause::Reads);
            // the tables that its query reads
            gather.facts.unlisted = true;
        }
        K::REINDEX => reindex(node, gather),
        K::LOCK => {
            let mode = syntax::child(node, K::LOCK_MODE_CLAUSE)
                .map_or(LockMode::AccessExclusive, |clause| named_mode(&clause));
            each(node, mode, gather);
        }
        K::COMMENT_ON => {
            let on = node.children().find(|child| {
                matches!(
                    child.kind(),
                    K::OBJECT_TABLE
                        | K::OBJECT_VIEW
                        | K::OBJECT_MATERIALIZED_VIEW
                        | K::OBJECT_SEQUENCE
                        | K::OBJECT_FOREIGN_TABLE
                )
            });
            if let Some(on) = on {
                gather.lock(syntax::relation(&on), LockMode::ShareUpdateExclusive);
            }
            if let Some(column) = syntax::child(node, K::OBJECT_COLUMN) {
                gather.lock(syntax::owner_of_column(&column), LockMode::ShareUpdateExclusive);
            }
        }
        _ => return false,
    }
    true
}

/// Every relation that a statement lists.
fn each(node: &SyntaxNode, mode: LockMode, gather: &mut Gather) {
    for relation in syntax::references(node) {
        gather.lock(syntax::name(&relation), mode);
    }
}

/// Whether a list of options in parentheses has this one, without a value that turns it off.
fn option(node: &SyntaxNode, name: &str) -> bool {
    node.descendants()
        .filter(|inner| inner.kind() == K::VACUUM_OPTION)
        .any(|found| {
            let text = found.text().to_string().to_ascii_lowercase();
            let mut words = text.split_whitespace();
            words.next() == Some(name) && !matches!(words.next(), Some("false" | "off" | "0"))
        })
}

fn named_mode(clause: &SyntaxNode) -> LockMode {
    match clause.children().next().map(|mode| mode.kind()) {
        Some(K::ACCESS_SHARE) => LockMode::AccessShare,
        Some(K::ROW_SHARE) => LockMode::RowShare,
        Some(K::ROW_EXCLUSIVE) => LockMode::RowExclusive,
        Some(K::SHARE_UPDATE_EXCLUSIVE) => LockMode::ShareUpdateExclusive,
        Some(K::SHARE) => LockMode::Share,
        Some(K::SHARE_ROW_EXCLUSIVE) => LockMode::ShareRowExclusive,
        Some(K::EXCLUSIVE) => LockMode::Exclusive,
        _ => LockMode::AccessExclusive,
    }
}

fn reindex(node: &SyntaxNode, gather: &mut Gather) {
    gather.work(Work::Scan, Cause::Reads);
    let Some(target) = node.children().find(|child| child.kind() != K::REINDEX_OPTION_LIST) else {
        gather.facts.unlisted = true;
        return;
    };
    let concurrently =
        syntax::keyword(&target, K::CONCURRENTLY_KW) || syntax::holds(node, K::REINDEX_OPTION_CONCURRENTLY);
    let mode = if concurrently {
        LockMode::ShareUpdateExclusive
    } else {
        LockMode::Share
    };
    gather.facts.transactional = !concurrently;
    match target.kind() {
        K::REINDEX_TARGET_TABLE => gather.lock(syntax::relation(&target), mode),
        K::REINDEX_TARGET_INDEX => {
            let index = syntax::child(&target, K::INDEX_REF).and_then(|index| syntax::name(&index));
            gather.lock_index(index, mode);
        }
        _ => (gather.facts.transactional, gather.facts.unlisted) = (false, true),
    }
}

fn queries(node: &SyntaxNode, kind: K, gather: &mut Gather) -> bool {
    match kind {
        K::SELECT | K::COMPOUND_SELECT | K::PAREN_SELECT | K::TABLE | K::VALUES => {
            // a function may do anything
            gather.facts.unlisted = syntax::holds(node, K::CALL_EXPR);
            read(node, gather);
        }
        K::INSERT | K::UPDATE | K::DELETE | K::MERGE => read(node, gather),
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

/// A query with everything in it: what it reads, what it changes, the rows it locks.
fn read(node: &SyntaxNode, gather: &mut Gather) {
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
