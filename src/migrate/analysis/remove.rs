//! DROP: what goes, and what else may go with it.

use squawk_syntax::{SyntaxKind as K, SyntaxNode};

use super::{Gather, LockMode, Loss, statement::on_relation, syntax};

pub(super) fn drops(node: &SyntaxNode, kind: K, gather: &mut Gather) -> bool {
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
        _ if gather.facts.kind.starts_with("DROP ") => {
            gather.facts.unlisted = true;
            None
        }
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
