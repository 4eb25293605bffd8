//! Maintenance: TRUNCATE, VACUUM, ANALYZE, CLUSTER, REFRESH, REINDEX, LOCK, COMMENT.

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::{Cause, Gather, LockMode, Loss, Work, syntax};

pub(super) fn maintains(node: &SyntaxNode, kind: K, gather: &mut Gather) -> bool {
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
        K::COMMENT_ON => comment(node, gather),
        _ => return false,
    }
    true
}

fn comment(node: &SyntaxNode, gather: &mut Gather) {
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

/// Every relation that a statement lists.
fn each(node: &SyntaxNode, mode: LockMode, gather: &mut Gather) {
    for relation in syntax::references(node) {
        gather.lock(syntax::name(&relation), mode);
    }
}

/// Whether a list of options in parentheses has this one, without a value that turns it off.
pub(super) fn option(node: &SyntaxNode, name: &str) -> bool {
    node.descendants()
        .filter(|inner| matches!(inner.kind(), K::VACUUM_OPTION | K::EXPLAIN_OPTION))
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
