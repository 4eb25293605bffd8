//! PackStream, the encoding of Bolt messages: what a login and a read-only query need. Pure.

use std::collections::BTreeMap;

/// A decoded value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Bytes(Vec<u8>),
    String(String),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
    /// A message, or a graph or temporal value: its tag and fields.
    Struct(u8, Vec<Value>),
}

impl Value {
    pub fn map<const N: usize>(entries: [(&str, Value); N]) -> Self {
        Self::Map(
            entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        )
    }

    pub fn text(text: &str) -> Self {
        Self::String(text.to_owned())
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// A map's entry.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.get(key),
            _ => None,
        }
    }

    /// Appends the encoded value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(0xC0),
            Self::Bool(value) => out.push(if *value { 0xC3 } else { 0xC2 }),
            Self::Int(number) => encode_int(*number, out),
            Self::Float(number) => {
                out.push(0xC1);
                out.extend(number.to_be_bytes());
            }
            Self::Bytes(bytes) => {
                out.push(0xCE);
                out.extend(length(bytes.len()).to_be_bytes());
                out.extend(bytes);
            }
            Self::String(text) => {
                header(0x80, 0xD2, text.len(), out);
                out.extend(text.as_bytes());
            }
            Self::List(items) => {
                header(0x90, 0xD6, items.len(), out);
                items.iter().for_each(|item| item.encode(out));
            }
            Self::Map(entries) => {
                header(0xA0, 0xDA, entries.len(), out);
                for (key, value) in entries {
                    Self::String(key.clone()).encode(out);
                    value.encode(out);
                }
            }
            Self::Struct(tag, fields) => {
                // The format has room for 15 fields; no message has more than four.
                out.extend([0xB0 | (fields.len() as u8 & 0x0F), *tag]);
                fields.iter().for_each(|field| field.encode(out));
            }
        }
    }

    /// Reads one value from the front; `None` when the bytes are no PackStream.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        decode(bytes, DEEPEST)
    }
}

/// Nesting beyond this is refused, so that no answer can overflow the stack.
const DEEPEST: u8 = 32;

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// The short form has the length in the marker; the long form, valid for every length, in four bytes after it.
fn header(short: u8, long: u8, size: usize, out: &mut Vec<u8>) {
    if size < 16 {
        out.push(short | size as u8);
    } else {
        out.push(long);
        out.extend(length(size).to_be_bytes());
    }
}

fn encode_int(number: i64, out: &mut Vec<u8>) {
    if let (-16..=127, Ok(small)) = (number, i8::try_from(number)) {
        out.extend(small.to_be_bytes());
    } else {
        out.push(0xCB);
        out.extend(number.to_be_bytes());
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(head)
}

/// A big-endian number of `width` bytes.
fn unsigned(bytes: &mut &[u8], width: usize) -> Option<usize> {
    Some(
        take(bytes, width)?
            .iter()
            .fold(0, |number, byte| number << 8 | usize::from(*byte)),
    )
}

fn decode(bytes: &mut &[u8], depth: u8) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let marker = *take(bytes, 1)?.first()?;
    // Length fields of 1, 2 and 4 bytes have adjacent markers.
    let size = |first: u8, bytes: &mut &[u8]| unsigned(bytes, 1 << (marker - first));
    let small = usize::from(marker & 0x0F);
    Some(match marker {
        0x00..=0x7F | 0xF0..=0xFF => Value::Int(i64::from(i8::from_be_bytes([marker]))),
        0x80..=0x8F => string(bytes, small)?,
        0x90..=0x9F => list(bytes, small, depth)?,
        0xA0..=0xAF => map(bytes, small, depth)?,
        0xB0..=0xBF => {
            let tag = *take(bytes, 1)?.first()?;
            Value::Struct(tag, items(bytes, small, depth)?)
        }
        0xC0 => Value::Null,
        0xC1 => Value::Float(f64::from_be_bytes(take(bytes, 8)?.try_into().ok()?)),
        0xC2 | 0xC3 => Value::Bool(marker == 0xC3),
        0xC8 => Value::Int(i8::from_be_bytes(take(bytes, 1)?.try_into().ok()?).into()),
        0xC9 => Value::Int(i16::from_be_bytes(take(bytes, 2)?.try_into().ok()?).into()),
        0xCA => Value::Int(i32::from_be_bytes(take(bytes, 4)?.try_into().ok()?).into()),
        0xCB => Value::Int(i64::from_be_bytes(take(bytes, 8)?.try_into().ok()?)),
        0xCC..=0xCE => {
            let size = size(0xCC, bytes)?;
            Value::Bytes(take(bytes, size)?.to_vec())
        }
        0xD0..=0xD2 => {
            let size = size(0xD0, bytes)?;
            string(bytes, size)?
        }
        0xD4..=0xD6 => {
            let size = size(0xD4, bytes)?;
            list(bytes, size, depth)?
        }
        0xD8..=0xDA => {
            let size = size(0xD8, bytes)?;
            map(bytes, size, depth)?
        }
        _ => return None,
    })
}

fn string(bytes: &mut &[u8], size: usize) -> Option<Value> {
    String::from_utf8(take(bytes, size)?.to_vec()).ok().map(Value::String)
}

fn items(bytes: &mut &[u8], count: usize, depth: u8) -> Option<Vec<Value>> {
    (0..count).map(|_| decode(bytes, depth)).collect()
}

fn list(bytes: &mut &[u8], count: usize, depth: u8) -> Option<Value> {
    items(bytes, count, depth).map(Value::List)
}

fn map(bytes: &mut &[u8], count: usize, depth: u8) -> Option<Value> {
    let entry = |_| match decode(bytes, depth)? {
        Value::String(key) => Some((key, decode(bytes, depth)?)),
        _ => None,
    };
    (0..count).map(entry).collect::<Option<_>>().map(Value::Map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.encode(&mut out);
        out
    }

    #[test]
    fn encodes_as_documented() {
        for (value, bytes) in [
            (Value::Null, &[0xC0][..]),
            (Value::Bool(true), &[0xC3]),
            (Value::Int(-16), &[0xF0]),
            (Value::Int(127), &[0x7F]),
            (Value::Int(-17), &[0xCB, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xEF]),
            (
                Value::Float(1.1),
                &[0xC1, 0x3F, 0xF1, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9A],
            ),
            (Value::text("A"), &[0x81, 0x41]),
            (Value::List(vec![Value::Int(1), Value::Int(2)]), &[0x92, 1, 2]),
            (Value::map([("a", Value::Int(1))]), &[0xA1, 0x81, 0x61, 1]),
            (
                Value::Struct(0x3F, vec![Value::map([("n", Value::Int(-1))])]),
                &[0xB1, 0x3F, 0xA1, 0x81, 0x6E, 0xFF],
            ),
        ] {
            assert_eq!(encoded(&value), bytes, "{value:?}");
        }
    }

    #[test]
    fn decodes_what_it_encodes_and_the_shorter_forms() {
        let nested = Value::Struct(
            0x70,
            vec![Value::map([
                ("text", Value::text(&"ä".repeat(200))),
                ("list", Value::List((0..300).map(Value::Int).collect())),
                ("bytes", Value::Bytes(vec![1, 2, 3])),
                ("float", Value::Float(-0.5)),
            ])],
        );
        assert_eq!(Value::decode(&mut &encoded(&nested)[..]), Some(nested));
        for (bytes, value) in [
            (&[0xC8, 0x80][..], Value::Int(-128)),
            (&[0xC9, 0x03, 0xE8], Value::Int(1000)),
            (&[0xCA, 0xFF, 0xFF, 0xFF, 0xFF], Value::Int(-1)),
            (&[0xD0, 0x01, 0x41], Value::text("A")),
            (&[0xD1, 0x00, 0x01, 0x41], Value::text("A")),
            (&[0xD4, 0x01, 0x05], Value::List(vec![Value::Int(5)])),
            (&[0xD8, 0x00], Value::map([])),
        ] {
            assert_eq!(Value::decode(&mut &bytes[..]), Some(value), "{bytes:02x?}");
        }
    }

    #[test]
    fn refuses_nonsense() {
        for bytes in [
            &[][..],
            &[0x81],
            &[0xD2, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0xA1, 0x01, 0x01],
            &[0xC4],
            &[0x81, 0xFF],
        ] {
            assert_eq!(Value::decode(&mut &bytes[..]), None, "{bytes:02x?}");
        }
        assert_eq!(Value::decode(&mut &[0x91; 1000][..]), None, "too deep");
    }
}
