//! The little that is asked of the syntax tree: nodes by kind, names, keywords.

use squawk_syntax::{
    SourceFile, SyntaxKind, SyntaxNode,
    ast::{self, AstNode},
};

use super::TableName;

/// The tree of the only statement of a text; None when it cannot be parsed.
pub(super) fn statement(sql: &str) -> Option<SyntaxNode> {
    let parsed = SourceFile::parse(sql);
    if !parsed.errors().is_empty() {
        return None;
    }
    let root = parsed.syntax_node();
    let mut all = root.children().filter(|node| ast::Stmt::cast(node.clone()).is_some());
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

/// The statement in a statement: what EXPLAIN explains.
pub(super) fn inner(node: &SyntaxNode) -> Option<SyntaxNode> {
    node.children().find(|child| ast::Stmt::cast(child.clone()).is_some())
}

/// The name of a node that is, or begins with, a reference to a relation.
pub(super) fn name(node: &SyntaxNode) -> Option<TableName> {
    let path = node.descendants().find_map(ast::PathRef::cast)?;
    dotted(path.segment()?.text(), path.qualifier())
}

fn dotted(name: String, qualifier: Option<ast::PathRef>) -> Option<TableName> {
    let schema = match qualifier {
        Some(path) => Some(path.segment()?.text()),
        None => None,
    };
    Some(TableName { schema, name })
}

/// The name that a CREATE gives.
pub(super) fn new_name(node: &SyntaxNode) -> Option<TableName> {
    let path = node
        .children()
        .flat_map(|child| child.descendants())
        .find_map(ast::Path::cast)?;
    dotted(path.segment()?.text(), None).map(|name| TableName {
        schema: path
            .qualifier()
            .and_then(|path| path.segment())
            .map(|segment| segment.text()),
        ..name
    })
}

/// Direct children of a kind.
pub(super) fn children(node: &SyntaxNode, kind: SyntaxKind) -> impl Iterator<Item = SyntaxNode> {
    node.children().filter(move |child| child.kind() == kind)
}

pub(super) fn child(node: &SyntaxNode, kind: SyntaxKind) -> Option<SyntaxNode> {
    children(node, kind).next()
}

pub(super) fn holds(node: &SyntaxNode, kind: SyntaxKind) -> bool {
    node.descendants().any(|inner| inner.kind() == kind)
}

/// Whether the node itself has this keyword.
pub(super) fn keyword(node: &SyntaxNode, kind: SyntaxKind) -> bool {
    node.children_with_tokens().any(|element| element.kind() == kind)
}

/// References to relations below a node, in their order.
pub(super) fn references(node: &SyntaxNode) -> impl Iterator<Item = SyntaxNode> {
    node.descendants().filter(|inner| {
        matches!(
            inner.kind(),
            SyntaxKind::TABLE_NAME_REF
                | SyntaxKind::RELATION_NAME_REF
                | SyntaxKind::VIEW_REF
                | SyntaxKind::SEQUENCE_REF
        )
    })
}

/// The first of them.
pub(super) fn relation(node: &SyntaxNode) -> Option<TableName> {
    references(node).next().and_then(|found| name(&found))
}

/// The relation of a column that is written `[schema.]relation.column`.
pub(super) fn owner_of_column(node: &SyntaxNode) -> Option<TableName> {
    let column = node.descendants().find_map(ast::PathRef::cast)?;
    let relation = column.qualifier()?;
    dotted(relation.segment()?.text(), relation.qualifier())
}
