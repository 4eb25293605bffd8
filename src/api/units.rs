//! Amounts as people write them: Kubernetes quantities (`20Gi`) and durations (`300s`), parsed once.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

/// A Kubernetes quantity kept as it was written, because Kubernetes gets it back as it was written. An integer is taken as its decimal text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quantity(String);

impl Quantity {
    /// Parses `[digits][.digits][suffix]` with the suffixes of Kubernetes (Ki Mi Gi Ti Pi Ei, k M G T P E, m, or none).
    pub fn parse(text: impl Into<String>) -> Result<Self, String> {
        let text = text.into();
        match bytes_of(&text) {
            Some(_) => Ok(Self(text)),
            None => Err(format!(
                "{text:?} is not a quantity: write a number with an optional suffix such as 512Mi, 20Gi or 500m"
            )),
        }
    }

    pub fn gibibytes(number: u32) -> Self {
        Self(format!("{number}Gi"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The amount in whole units (bytes for storage and memory), rounded up.
    pub fn value(&self) -> u64 {
        bytes_of(&self.0).unwrap_or_default()
    }

    /// The amount in thousandths of a unit, so that `1` and `1000m` are equal.
    pub fn milli_value(&self) -> u128 {
        match self.0.strip_suffix('m') {
            Some(milli) => milli.parse().unwrap_or_default(),
            None => u128::from(bytes_of(&format!("{}k", self.0)).unwrap_or_else(|| self.value() * 1000)),
        }
    }
}

/// The amount in whole units, rounded up; `None` if the text is no quantity or does not fit.
fn bytes_of(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1048576.0),
        ("Gi", 1073741824.0),
        ("Ti", 1099511627776.0),
        ("Pi", 1125899906842624.0),
        ("Ei", 1152921504606846976.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
        ("m", 1e-3),
        ("", 1.0),
    ];
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, factor)))?;
    let plain = !number.is_empty()
        && number.chars().all(|c| c.is_ascii_digit() || c == '.')
        && number.starts_with(|c: char| c.is_ascii_digit());
    let amount = number.parse::<f64>().ok().filter(|_| plain)? * factor;
    (amount <= u64::MAX as f64).then_some(amount.ceil() as u64)
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        };
        Self::parse(text).map_err(de::Error::custom)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 32,
            "pattern": "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E|m)?$",
        })
    }
}

/// A duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.chars().take_while(char::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let millis_per_unit = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => 0,
        };
        match number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(millis_per_unit))
        {
            Some(millis) if millis_per_unit > 0 => Ok(Self(Duration::from_millis(millis))),
            _ => Err(format!(
                "{text:?} is not a duration: write a whole number followed by ms, s, m, h or d, such as 300s"
            )),
        }
    }

    pub const fn get(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            millis if millis % 1000 == 0 => write!(f, "{}s", millis / 1000),
            millis => write!(f, "{millis}ms"),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 16, "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, value) in [
            ("1", 1),
            ("20Gi", 20 << 30),
            ("512Mi", 512 << 20),
            ("1.5k", 1500),
            ("100m", 1),
            ("0", 0),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().value(), value, "{text}");
        }
        for bad in ["", "Gi", "20GB", "-1", "1e3", "nan", "inf", "1 Gi", ".5", "99999999Ei"] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::from_str::<Quantity>("7").unwrap().as_str(), "7");
    }

    #[test]
    fn durations() {
        for (text, millis, shown) in [
            ("300s", 300_000, "300s"),
            ("5m", 300_000, "300s"),
            ("250ms", 250, "250ms"),
            ("1h", 3_600_000, "3600s"),
            ("90d", 7_776_000_000, "7776000s"),
        ] {
            let span = Span::parse(text).unwrap();
            assert_eq!((span.get().as_millis(), span.to_string().as_str()), (millis, shown));
        }
        for bad in [
            "",
            "5",
            "s",
            "1.5s",
            "-1s",
            "5 s",
            "5w",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(Span::parse(bad).is_err(), "{bad}");
        }
    }
}
