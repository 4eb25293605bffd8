//! PostgreSQL's table lock modes and the names of what is locked.

use std::fmt;

/// Weakest first, as in the manual's chapter on explicit locking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockMode {
    AccessShare,
    RowShare,
    RowExclusive,
    ShareUpdateExclusive,
    Share,
    ShareRowExclusive,
    Exclusive,
    AccessExclusive,
}

impl LockMode {
    const ALL: [Self; 8] = [
        Self::AccessShare,
        Self::RowShare,
        Self::RowExclusive,
        Self::ShareUpdateExclusive,
        Self::Share,
        Self::ShareRowExclusive,
        Self::Exclusive,
        Self::AccessExclusive,
    ];

    /// From its number, weakest first; the strongest for any other.
    pub fn numbered(number: i32) -> Self {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        Self::ALL.get(place).copied().unwrap_or(Self::AccessExclusive)
    }

    /// As LOCK TABLE writes it.
    pub fn sql(self) -> &'static str {
        match self {
            Self::AccessShare => "ACCESS SHARE",
            Self::RowShare => "ROW SHARE",
            Self::RowExclusive => "ROW EXCLUSIVE",
            Self::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::Exclusive => "EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }

    /// As pg_locks writes it.
    pub fn in_pg_locks(self) -> &'static str {
        match self {
            Self::AccessShare => "AccessShareLock",
            Self::RowShare => "RowShareLock",
            Self::RowExclusive => "RowExclusiveLock",
            Self::ShareUpdateExclusive => "ShareUpdateExclusiveLock",
            Self::Share => "ShareLock",
            Self::ShareRowExclusive => "ShareRowExclusiveLock",
            Self::Exclusive => "ExclusiveLock",
            Self::AccessExclusive => "AccessExclusiveLock",
        }
    }

    /// The modes that another session must not hold meanwhile, as in the manual's table of conflicts.
    pub fn conflicts(self) -> &'static [LockMode] {
        use LockMode::*;
        match self {
            AccessShare => &Self::ALL[7..],
            RowShare => &Self::ALL[6..],
            RowExclusive => &Self::ALL[4..],
            ShareUpdateExclusive => &Self::ALL[3..],
            Share => &[
                RowExclusive,
                ShareUpdateExclusive,
                ShareRowExclusive,
                Exclusive,
                AccessExclusive,
            ],
            ShareRowExclusive => &Self::ALL[2..],
            Exclusive => &Self::ALL[1..],
            AccessExclusive => &Self::ALL,
        }
    }

    /// Queries that change rows wait behind it.
    pub fn blocks_writes(self) -> bool {
        self >= Self::Share
    }

    /// Plain SELECTs wait behind it too.
    pub fn blocks_reads(self) -> bool {
        self == Self::AccessExclusive
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sql())
    }
}

/// A relation as a statement names it, folded the way the server does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// None: whatever search_path finds.
    pub schema: Option<String>,
    pub name: String,
}

/// Quoted, so that it can go into SQL as it is.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "\"{}\".", schema.replace('"', "\"\""))?;
        }
        write!(f, "\"{}\"", self.name.replace('"', "\"\""))
    }
}
