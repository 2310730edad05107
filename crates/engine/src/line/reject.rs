//! Why a line is no point: the closed list that metrics, the ledger and the samples of bad lines share.

/// The reason a line was refused. Every refused line counts under exactly one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reject {
    /// Nothing but blanks.
    Empty,
    /// Only a name, or no timestamp where the policy asks for one.
    TooFewFields,
    /// More than three fields.
    TooManyFields,
    /// The value is no decimal number.
    BadValue,
    /// The value is `nan`. Usual: collectd sends it for every rate in its first interval.
    Nan,
    /// The value is `inf`, or too large for a 64-bit float.
    Infinite,
    /// The timestamp is no decimal number.
    BadTimestamp,
    /// The timestamp is not within 1..=`u32::MAX` seconds.
    TimestampOutOfRange,
    /// The name is not UTF-8.
    BadUtf8,
    /// The name has a control character in it.
    ControlCharacter,
    /// There are tags but no name before them, or the name is nothing but `~`.
    EmptyName,
    /// The name is longer than the policy's limit.
    NameTooLong,
    /// The line is longer than the policy's limit.
    LineTooLong,
    /// A tag without key or value, or with characters that Graphite forbids there.
    BadTag,
    /// The connection ended inside the line.
    Truncated,
}

impl Reject {
    /// Every reason, in the order of [`Reject::index`].
    pub const ALL: [Reject; 15] = [
        Reject::Empty,
        Reject::TooFewFields,
        Reject::TooManyFields,
        Reject::BadValue,
        Reject::Nan,
        Reject::Infinite,
        Reject::BadTimestamp,
        Reject::TimestampOutOfRange,
        Reject::BadUtf8,
        Reject::ControlCharacter,
        Reject::EmptyName,
        Reject::NameTooLong,
        Reject::LineTooLong,
        Reject::BadTag,
        Reject::Truncated,
    ];

    /// Place in [`Reject::ALL`], for arrays of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The value of the label `reason`; part of the operator's interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reject::Empty => "empty",
            Reject::TooFewFields => "too_few_fields",
            Reject::TooManyFields => "too_many_fields",
            Reject::BadValue => "bad_value",
            Reject::Nan => "nan",
            Reject::Infinite => "infinite",
            Reject::BadTimestamp => "bad_timestamp",
            Reject::TimestampOutOfRange => "timestamp_out_of_range",
            Reject::BadUtf8 => "bad_utf8",
            Reject::ControlCharacter => "control_character",
            Reject::EmptyName => "empty_name",
            Reject::NameTooLong => "name_too_long",
            Reject::LineTooLong => "line_too_long",
            Reject::BadTag => "bad_tag",
            Reject::Truncated => "truncated",
        }
    }

    /// Whether it tells of a client that does something wrong, so that a person should hear of it. `nan` and empty
    /// lines are what well-behaved clients send; they are counted and no more.
    pub const fn warns(self) -> bool {
        match self {
            Reject::Empty | Reject::Nan => false,
            Reject::TooFewFields
            | Reject::TooManyFields
            | Reject::BadValue
            | Reject::Infinite
            | Reject::BadTimestamp
            | Reject::TimestampOutOfRange
            | Reject::BadUtf8
            | Reject::ControlCharacter
            | Reject::EmptyName
            | Reject::NameTooLong
            | Reject::LineTooLong
            | Reject::BadTag
            | Reject::Truncated => true,
        }
    }
}
