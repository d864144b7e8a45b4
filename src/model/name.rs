//! Names of users: which texts are names (docs/src/concepts.md).
//!
//! A name is of PRECIS `FreeformClass` (RFC 8264), so spaces, symbols and the scripts of the world are fine and what
//! nobody sees is not. Nothing is mapped: two names that differ in a byte are two names.

use std::fmt;
use std::sync::Arc;

use precis_core::{DerivedPropertyValue, Error, FreeformClass, StringClass as _, UnexpectedError};
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory as _};

/// Stands for an allowed character that PRECIS does not know: a symbol, which no rule for its neighbours mentions.
const STAND_IN: char = '○';
/// Characters that are allowed and leave no mark: BRAILLE PATTERN BLANK, MUSICAL SYMBOL NULL NOTEHEAD, EGYPTIAN
/// HIEROGLYPH FULL BLANK and HALF BLANK.
const BLANKS: [char; 4] = ['\u{2800}', '\u{1d159}', '\u{13441}', '\u{13442}'];
/// A variation selector that came after the Unicode version of PRECIS; the others are refused as ignorable.
const MONGOLIAN_SELECTOR_FOUR: char = '\u{180f}';

/// A user's name: 1 to 128 bytes of UTF-8, compared byte for byte.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(pub(super) Arc<str>);

/// Why a text is not a valid [`UserName`]. It is shown to users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// It is empty or too long.
    #[error("Invalid name: use 1 to {} bytes of text", UserName::MAX_BYTES)]
    Length,
    /// Nothing of it can be seen.
    #[error("Invalid name: it needs a visible character")]
    Invisible,
    /// This character is no part of a name, or not beside its neighbours.
    #[error("Invalid name: U+{:04X} is not allowed here", u32::from(*.0))]
    Character(char),
    /// This mark needs a character before it.
    #[error("Invalid name: U+{:04X} cannot be the first character", u32::from(*.0))]
    MarkFirst(char),
}

impl UserName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Parses a name as the client wrote it.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if !(1..=Self::MAX_BYTES).contains(&text.len()) {
            return Err(InvalidName::Length);
        }
        // Names are parsed for every signal, and most are of ASCII.
        if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            check(text)?;
        } else if text.bytes().all(|byte| byte == b' ') {
            return Err(InvalidName::Invisible);
        }
        Ok(Self(text.into()))
    }

    /// A name that was parsed at a login, or is nobody's: by another node, whose rules may be of another version.
    pub fn known(text: &str) -> Result<Self, InvalidName> {
        let fits = (1..=Self::MAX_BYTES).contains(&text.len());
        fits.then(|| Self(text.into())).ok_or(InvalidName::Length)
    }

    /// The name as the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str) -> Result<(), InvalidName> {
    let known: String = text.chars().map(of_precis).collect();
    FreeformClass::default()
        .allows(known)
        .map_err(|error| InvalidName::Character(blamed(&error, text)))?;
    match text.chars().next() {
        Some(first) if is_mark(first) => Err(InvalidName::MarkFirst(first)),
        _ if !text.chars().any(is_visible) => Err(InvalidName::Invisible),
        _ => Ok(()),
    }
}

/// The character for PRECIS, whose tables are of Unicode 6.3: many emoji and some scripts in daily use are younger.
fn of_precis(c: char) -> char {
    let is_young =
        || FreeformClass::default().get_value_from_char(c) == DerivedPropertyValue::Unassigned;
    let is_text = || {
        matches!(
            c.general_category_group(),
            GeneralCategoryGroup::Letter
                | GeneralCategoryGroup::Mark
                | GeneralCategoryGroup::Number
                | GeneralCategoryGroup::Punctuation
                | GeneralCategoryGroup::Symbol
        )
    };
    if c != MONGOLIAN_SELECTOR_FOUR && is_text() && is_young() {
        STAND_IN
    } else {
        c
    }
}

/// The character that the error is about.
fn blamed(error: &Error, text: &str) -> char {
    let position = match error {
        Error::BadCodepoint(info)
        | Error::Unexpected(
            UnexpectedError::ContextRuleNotApplicable(info)
            | UnexpectedError::MissingContextRule(info),
        ) => Some(info.position),
        // A character lacks a neighbour that its rule asks for.
        _ => text.chars().position(needs_neighbours),
    };
    let blamed = position.and_then(|position| text.chars().nth(position));
    blamed.unwrap_or_default()
}

fn needs_neighbours(c: char) -> bool {
    matches!(
        FreeformClass::default().get_value_from_char(c),
        DerivedPropertyValue::ContextJ | DerivedPropertyValue::ContextO
    )
}

fn is_mark(c: char) -> bool {
    c.general_category_group() == GeneralCategoryGroup::Mark
}

fn is_visible(c: char) -> bool {
    let is_space = c.general_category() == GeneralCategory::SpaceSeparator;
    !is_space && !is_mark(c) && !BLANKS.contains(&c)
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserName({self})")
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[path = "name_tests.rs"]
mod tests;
