//! The strict JSON door (E1). Every text that comes from outside goes through [`parse`], and what
//! comes out of it has one meaning to everybody.
//!
//! `serde_json` is the tokenizer. Its own value types aren't used: they take the last of several
//! equal names, and numbers that other implementations round. [`Object`] keeps its names in the
//! order of RFC 8785, so that the canonical form falls out.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Cell;
use core::cmp::Ordering;
use core::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use crate::canonical;

/// 2^53 − 1: no number is larger in magnitude (E1).
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

/// How many arrays and objects may stand inside one another, the outermost one counted (E1).
pub const MAX_DEPTH: usize = 32;

/// A JSON value as E1 allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number of at most 2^53 − 1 in magnitude.
    Number(Number),
    /// A string: any Unicode scalar values, noncharacters included, nothing normalised (E1, E2).
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object, whose names are unique.
    Object(Object),
}

impl Value {
    /// The string, where it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The boolean, where it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The number, where it is one.
    #[must_use]
    pub fn as_number(&self) -> Option<Number> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The integer, where it is one that was written as the protocol's own fields must be: without
    /// fraction or exponent (E1).
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        self.as_number()?.as_integer()
    }

    /// As [`as_integer`](Value::as_integer), for fields that can't be negative.
    #[must_use]
    pub fn as_unsigned(&self) -> Option<u64> {
        self.as_integer()?.try_into().ok()
    }

    /// The elements, where it is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The members, where it is an object.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The members for keeps, where it is an object.
    #[must_use]
    pub fn into_object(self) -> Option<Object> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }
}

/// The canonical text (RFC 8785).
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&canonical::to_string(self))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::String(text)
    }
}

impl<N: Into<Number>> From<N> for Value {
    fn from(number: N) -> Value {
        Value::Number(number.into())
    }
}

impl<V: Into<Value>> From<Vec<V>> for Value {
    fn from(elements: Vec<V>) -> Value {
        Value::Array(elements.into_iter().map(Into::into).collect())
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Value {
        Value::Object(object)
    }
}

impl<V: Into<Value>> FromIterator<V> for Value {
    fn from_iter<I: IntoIterator<Item = V>>(elements: I) -> Value {
        Value::Array(elements.into_iter().map(Into::into).collect())
    }
}

/// A number of at most 2^53 − 1 in magnitude (E1). It knows whether it was written as an integer,
/// since the protocol's own fields must be.
///
/// Two numbers are equal where they are the same double: `1`, `1.0` and `10e-1` have one canonical
/// form, and so one hash; so have `0` and `-0`.
#[derive(Clone, Copy)]
pub struct Number(Repr);

#[derive(Clone, Copy)]
enum Repr {
    /// Written without fraction and exponent, and not as `-0`. Invariant: at most `MAX_INTEGER` in
    /// magnitude.
    Integer(i64),
    /// Written in any other way. Invariant: the same, so it is neither infinite nor NaN.
    Double(f64),
}

impl Number {
    /// `n`, or 2^53 − 1 where it is more: for counts, sizes and times of this program's own, which
    /// can't come near the bound.
    #[must_use]
    pub fn saturating(n: u64) -> Number {
        Number(Repr::Integer(i64::try_from(n).unwrap_or(MAX_INTEGER).min(MAX_INTEGER)))
    }

    /// The integer, where it was written as one: no fraction, no exponent, not `-0` (E1).
    #[must_use]
    pub const fn as_integer(self) -> Option<i64> {
        match self.0 {
            Repr::Integer(integer) => Some(integer),
            Repr::Double(_) => None,
        }
    }

    /// The double. Every integer in bounds is one exactly.
    #[must_use]
    pub const fn as_f64(self) -> f64 {
        match self.0 {
            Repr::Integer(integer) => integer as f64,
            Repr::Double(double) => double,
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.as_f64() == other.as_f64()
    }
}

/// No number is NaN.
impl Eq for Number {}

/// The canonical text (RFC 8785).
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        canonical::write_number(*self, &mut text);
        f.write_str(&text)
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Repr::Integer(integer) => write!(f, "Integer({integer})"),
            Repr::Double(double) => write!(f, "Double({double:?})"),
        }
    }
}

/// The number is above 2^53 − 1 in magnitude, or none at all (E1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberOutOfBounds;

impl fmt::Display for NumberOutOfBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the number is above 2^53 - 1 in magnitude")
    }
}

impl core::error::Error for NumberOutOfBounds {}

impl TryFrom<i64> for Number {
    type Error = NumberOutOfBounds;

    fn try_from(integer: i64) -> Result<Number, NumberOutOfBounds> {
        if integer.unsigned_abs() > MAX_INTEGER.unsigned_abs() {
            return Err(NumberOutOfBounds);
        }
        Ok(Number(Repr::Integer(integer)))
    }
}

impl TryFrom<u64> for Number {
    type Error = NumberOutOfBounds;

    fn try_from(integer: u64) -> Result<Number, NumberOutOfBounds> {
        i64::try_from(integer).map_err(|_| NumberOutOfBounds)?.try_into()
    }
}

impl TryFrom<usize> for Number {
    type Error = NumberOutOfBounds;

    fn try_from(integer: usize) -> Result<Number, NumberOutOfBounds> {
        i64::try_from(integer).map_err(|_| NumberOutOfBounds)?.try_into()
    }
}

impl TryFrom<f64> for Number {
    type Error = NumberOutOfBounds;

    fn try_from(double: f64) -> Result<Number, NumberOutOfBounds> {
        // A comparison with NaN is false, so that one is refused too.
        if double.abs() <= MAX_INTEGER as f64 {
            Ok(Number(Repr::Double(double)))
        } else {
            Err(NumberOutOfBounds)
        }
    }
}

macro_rules! number_from_small {
    ($($integer:ty),*) => {
        $(impl From<$integer> for Number {
            fn from(integer: $integer) -> Number {
                Number(Repr::Integer(integer.into()))
            }
        })*
    };
}

number_from_small!(u8, u16, u32, i8, i16, i32);

/// The members of an object, sorted by the UTF-16 code units of their names (the order of RFC 8785
/// §3.2.3). Names are unique.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Object {
    // Invariant: strictly ascending by `compare_names`.
    members: Vec<(String, Value)>,
}

impl Object {
    /// One without members.
    #[must_use]
    pub const fn new() -> Object {
        Object { members: Vec::new() }
    }

    /// The value under this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self.find(name).ok()?;
        self.members.get(at).map(|(_, value)| value)
    }

    /// Whether there is a member of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// Puts the value under this name, and returns the one that it replaces.
    ///
    /// Each call moves the members behind it. Collect an iterator to build an object of many.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (name, value) = (name.into(), value.into());
        match self.find(&name) {
            Ok(at) => self.members.get_mut(at).map(|(_, old)| core::mem::replace(old, value)),
            Err(at) => {
                self.members.insert(at, (name, value));
                None
            }
        }
    }

    /// Takes the member of this name out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.find(name).ok()?;
        Some(self.members.remove(at).1)
    }

    /// The members in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.members.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The names in their order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.members.iter().map(|(name, _)| name.as_str())
    }

    /// How many members it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|(other, _)| compare_names(other, name))
    }

    /// None where two names are equal. Sorting costs the same for names that were made to collide
    /// as for any others.
    fn from_unique(mut members: Vec<(String, Value)>) -> Option<Object> {
        members.sort_unstable_by(|(a, _), (b, _)| compare_names(a, b));
        let unique = members
            .iter()
            .zip(members.iter().skip(1))
            .all(|((a, _), (b, _))| a != b);
        unique.then_some(Object { members })
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Of equal names the last one counts.
impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(members: I) -> Object {
        let mut members: Vec<(String, Value)> = members
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        // Reversed before a stable sort, so that of equal names the last one comes first, which is
        // the one that `dedup_by` keeps.
        members.reverse();
        members.sort_by(|(a, _), (b, _)| compare_names(a, b));
        members.dedup_by(|(a, _), (b, _)| a == b);
        Object { members }
    }
}

impl IntoIterator for Object {
    type Item = (String, Value);
    type IntoIter = alloc::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.members.into_iter()
    }
}

/// The order of the UTF-16 code units of two names, found without making them.
///
/// UTF-8 sorts as code points do. UTF-16 differs from that in one thing: the surrogates of U+10000
/// and above come before U+E000 to U+FFFF. In UTF-8 those begin with F0 to F4, and with EE or EF:
/// bytes that stand nowhere else, so one byte decides.
#[must_use]
pub fn compare_names(a: &str, b: &str) -> Ordering {
    fn rank(byte: u8) -> u8 {
        match byte {
            0xee..=0xef => byte + 0x10,
            _ => byte,
        }
    }
    let differing = a.bytes().zip(b.bytes()).find(|(a, b)| a != b);
    differing.map_or_else(|| a.len().cmp(&b.len()), |(a, b)| rank(a).cmp(&rank(b)))
}

/// An [`Object`] of the given members: `object! { "seq": 7, "unread": Number::saturating(n),
/// "cause"?: cause }`. A member with `?` takes an `Option`, and is left out where that is `None`.
/// Of equal names the last one counts.
#[macro_export]
macro_rules! object {
    ($($members:tt)*) => {{
        #[allow(unused_mut, reason = "an object may be empty")]
        let mut object = $crate::json::Object::new();
        $crate::object_members!(object; $($members)*);
        object
    }};
}

/// The members of [`object!`], one at a time.
#[doc(hidden)]
#[macro_export]
macro_rules! object_members {
    ($object:ident;) => {};
    ($object:ident; $name:literal : $value:expr $(, $($rest:tt)*)?) => {
        $object.insert($name, $value);
        $crate::object_members!($object; $($($rest)*)?);
    };
    ($object:ident; $name:literal ? : $value:expr $(, $($rest:tt)*)?) => {
        if let Some(value) = $value {
            $object.insert($name, value);
        }
        $crate::object_members!($object; $($($rest)*)?);
    };
}

pub use crate::object;

/// Why a text isn't a value that E1 allows. It never holds any of the text, which may be another
/// user's or a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonError {
    /// The bytes aren't UTF-8.
    NotUtf8,
    /// The text begins with U+FEFF.
    ByteOrderMark,
    /// The text isn't JSON, or holds a lone surrogate.
    Syntax {
        /// What the tokenizer found wrong.
        reason: String,
        /// Where.
        position: Position,
    },
    /// An object has two members of one name, however written.
    DuplicateName(Position),
    /// A number, as the double nearest to it, is above 2^53 − 1 in magnitude.
    NumberOutOfBounds(Position),
    /// Arrays and objects are nested more than 32 deep.
    TooDeep(Position),
}

/// A place in a text: where the tokenizer stood when it noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line, counted from 1.
    pub line: usize,
    /// The bytes of the line up to there.
    pub column: usize,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::NotUtf8 => f.write_str("not UTF-8"),
            JsonError::ByteOrderMark => f.write_str("the text begins with a byte order mark (U+FEFF)"),
            JsonError::Syntax { reason, position } => write!(f, "not JSON: {reason} at {position}"),
            JsonError::DuplicateName(position) => {
                write!(f, "two members of one name in the object that ends at {position}")
            }
            JsonError::NumberOutOfBounds(position) => {
                write!(f, "a number above 2^53 - 1 in magnitude at {position}")
            }
            JsonError::TooDeep(position) => {
                write!(f, "nested too deep at {position}")
            }
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

impl core::error::Error for JsonError {}

/// The value of a text (E1), which must be the whole text, white space aside.
///
/// # Errors
/// All that isn't JSON, and all that E1 refuses beyond it.
pub fn parse(text: &str) -> Result<Value, JsonError> {
    parse_to_depth(text, MAX_DEPTH)
}

/// As [`parse`], where arrays and objects may nest `max_depth` deep: what a server sends carries what clients may nest [`MAX_DEPTH`] deep themselves.
///
/// # Errors
/// Those of [`parse`].
pub fn parse_to_depth(text: &str, max_depth: usize) -> Result<Value, JsonError> {
    if text.starts_with('\u{feff}') {
        return Err(JsonError::ByteOrderMark);
    }
    let broken_rule = Cell::new(None);
    let door = Door {
        levels_left: max_depth,
        broken_rule: &broken_rule,
    };
    let mut tokens = serde_json::Deserializer::from_str(text);
    door.deserialize(&mut tokens)
        .and_then(|value| tokens.end().map(|()| value))
        .map_err(|error| explain(&error, broken_rule.get()))
}

/// As [`parse`], for bytes that must be UTF-8.
///
/// # Errors
/// As [`parse`], and [`JsonError::NotUtf8`], for which a WebSocket has a close code of its own
/// (E4).
pub fn parse_bytes(bytes: &[u8]) -> Result<Value, JsonError> {
    parse(simdutf8::basic::from_utf8(bytes).map_err(|_| JsonError::NotUtf8)?)
}

/// A rule of E1 beyond JSON's own. The tokenizer's errors carry text only, so the door notes here
/// which one it was.
#[derive(Clone, Copy)]
enum BrokenRule {
    DuplicateName,
    NumberOutOfBounds,
    TooDeep,
}

/// Takes in one value, in which arrays and objects may nest `levels_left` deep.
#[derive(Clone, Copy)]
struct Door<'a> {
    levels_left: usize,
    broken_rule: &'a Cell<Option<BrokenRule>>,
}

impl Door<'_> {
    fn refuse<E: serde::de::Error>(self, rule: BrokenRule) -> E {
        self.broken_rule.set(Some(rule));
        E::custom("refused")
    }

    fn number<N, E>(self, number: N) -> Result<Value, E>
    where
        Number: TryFrom<N>,
        E: serde::de::Error,
    {
        Number::try_from(number)
            .map(Value::Number)
            .map_err(|_| self.refuse(BrokenRule::NumberOutOfBounds))
    }

    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.levels_left.checked_sub(1) {
            Some(levels_left) => Ok(Door { levels_left, ..self }),
            None => Err(self.refuse(BrokenRule::TooDeep)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Door<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Door<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, integer: u64) -> Result<Value, E> {
        self.number(integer)
    }

    fn visit_i64<E: serde::de::Error>(self, integer: i64) -> Result<Value, E> {
        self.number(integer)
    }

    fn visit_f64<E: serde::de::Error>(self, double: f64) -> Result<Value, E> {
        self.number(double)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut elements = Vec::new();
        while let Some(element) = access.next_element_seed(inner)? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut members = Vec::new();
        while let Some(name) = access.next_key::<String>()? {
            members.push((name, access.next_value_seed(inner)?));
        }
        Object::from_unique(members)
            .map(Value::Object)
            .ok_or_else(|| self.refuse(BrokenRule::DuplicateName))
    }
}

fn explain(error: &serde_json::Error, broken_rule: Option<BrokenRule>) -> JsonError {
    let position = Position {
        line: error.line(),
        column: error.column(),
    };
    match broken_rule {
        Some(BrokenRule::DuplicateName) => JsonError::DuplicateName(position),
        Some(BrokenRule::NumberOutOfBounds) => JsonError::NumberOutOfBounds(position),
        Some(BrokenRule::TooDeep) => JsonError::TooDeep(position),
        None => {
            // The tokenizer's own reasons are fixed texts. It writes the position behind them,
            // which stands in its own field here.
            let mut reason = error.to_string();
            let length = reason
                .strip_suffix(&format!(" at {position}"))
                .map_or(reason.len(), str::len);
            reason.truncate(length);
            // What is too large even for a double is the same mistake to whoever made it.
            if reason == "number out of range" {
                return JsonError::NumberOutOfBounds(position);
            }
            JsonError::Syntax { reason, position }
        }
    }
}
