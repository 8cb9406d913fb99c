//! The value of one setting: read from text, and written as a scalar of a file.

use std::any::Any;
use std::str::FromStr;
use std::time::Duration;

use crate::conn::Reset;
use crate::connection_string::ConnectionString;
use crate::error::ConfigError;
use crate::policy::{Adaptive, Lane, Shedding};

/// An error shows at most this many characters of a value.
const LONGEST_SHOWN: usize = 60;

/// The time after which something happens, if ever. Written as a duration, or `"never"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// It never happens.
    Never,
    /// It happens after this time.
    After(Duration),
}

impl From<Expiry> for Option<Duration> {
    fn from(expiry: Expiry) -> Self {
        match expiry {
            Expiry::Never => None,
            Expiry::After(time) => Some(time),
        }
    }
}

impl From<Duration> for Expiry {
    fn from(time: Duration) -> Self {
        Self::After(time)
    }
}

/// A value as a file has it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Text(String),
    Whole(u64),
    Fraction(f64),
    Flag(bool),
}

/// Why a text is not a value of a setting.
#[derive(Debug)]
pub(super) enum Problem {
    /// The text is not of the setting's kind; an error quotes this rule.
    NotOfKind(&'static str),
    /// A part of the text cannot be used. The whole text may hold a password, so no error quotes it.
    OfPart(ConfigError),
}

impl Problem {
    pub(super) fn of(self, setting: &str, value: &str) -> ConfigError {
        match self {
            Self::NotOfKind(wanted) => {
                let shown: String = value.chars().take(LONGEST_SHOWN).collect();
                let rest = if shown.len() == value.len() { "" } else { "..." };
                ConfigError::new(setting.to_owned(), format!("{shown:?}{rest}"), wanted)
            }
            Self::OfPart(error) => error.of_part_of(setting),
        }
    }
}

/// A setting that is given or not, of any kind.
pub(super) trait Field {
    fn read(&mut self, text: &str) -> Result<(), Problem>;
    /// `None`: it is not given, or must not be written down.
    fn show(&self) -> Option<Scalar>;
    /// Takes the value of `other`, which is of the same kind, if it is given.
    fn take_from(&mut self, other: &mut dyn Field);
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<T: Value> Field for Option<T> {
    fn read(&mut self, text: &str) -> Result<(), Problem> {
        *self = Some(T::read(text)?);
        Ok(())
    }

    fn show(&self) -> Option<Scalar> {
        self.as_ref()?.show()
    }

    fn take_from(&mut self, other: &mut dyn Field) {
        if let Some(given) = other.as_any().downcast_mut::<Self>().and_then(Option::take) {
            *self = Some(given);
        }
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// A kind of values that settings have.
pub(super) trait Value: Sized + 'static {
    /// The rule that a text of another kind breaks, for an error.
    const WANTED: &'static str;
    fn parse(text: &str) -> Option<Self>;
    fn read(text: &str) -> Result<Self, Problem> {
        Self::parse(text).ok_or(Problem::NotOfKind(Self::WANTED))
    }
    fn show(&self) -> Option<Scalar>;
}

const WHOLE: &str = "must be a whole number, not negative and not too large";

fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

impl Value for usize {
    const WANTED: &'static str = WHOLE;

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Whole(*self as u64))
    }
}

impl Value for u64 {
    const WANTED: &'static str = WHOLE;

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Whole(*self))
    }
}

impl Value for u32 {
    const WANTED: &'static str = WHOLE;

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Whole((*self).into()))
    }
}

impl Value for u8 {
    const WANTED: &'static str = "must be a whole number, 0 to 255";

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Whole((*self).into()))
    }
}

impl Value for f64 {
    const WANTED: &'static str = "must be a number";

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Fraction(*self))
    }
}

impl Value for bool {
    const WANTED: &'static str = "must be true or false";

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Flag(*self))
    }
}

impl Value for Lane {
    const WANTED: &'static str = "must be critical, normal or background";

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Text(self.as_str().to_owned()))
    }
}

impl Value for String {
    const WANTED: &'static str = "must be a text";

    fn parse(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Text(self.clone()))
    }
}

impl Value for Duration {
    const WANTED: &'static str = "must be a duration with its unit, such as \"250ms\", \"5s\" or \"30 min\"";

    fn parse(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok()
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Text(humantime::format_duration(*self).to_string()))
    }
}

impl Value for Expiry {
    const WANTED: &'static str =
        "must be \"never\", or a duration with its unit, such as \"250ms\", \"5s\" or \"30 min\"";

    fn parse(text: &str) -> Option<Self> {
        if text == "never" { Some(Self::Never) } else { Duration::parse(text).map(Self::After) }
    }

    fn show(&self) -> Option<Scalar> {
        match self {
            Self::Never => Some(Scalar::Text("never".to_owned())),
            Self::After(time) => time.show(),
        }
    }
}

impl Value for Shedding {
    const WANTED: &'static str = "must be \"predictive\", \"queue_only\" or \"off\"";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "predictive" => Some(Self::Predictive),
            "queue_only" => Some(Self::QueueOnly),
            "off" => Some(Self::Off),
            _ => None,
        }
    }

    fn show(&self) -> Option<Scalar> {
        let word = match self {
            Self::Predictive => "predictive",
            Self::QueueOnly => "queue_only",
            Self::Off => "off",
        };
        Some(Scalar::Text(word.to_owned()))
    }
}

impl Value for Adaptive {
    const WANTED: &'static str = "must be \"off\", \"advise\" or \"act\"";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            "advise" => Some(Self::Advise),
            "act" => Some(Self::Act),
            _ => None,
        }
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Text(self.as_str().to_owned()))
    }
}

impl Value for Reset {
    const WANTED: &'static str = "must be \"never\", \"when_seen\" or \"always\"";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "never" => Some(Self::Never),
            "when_seen" => Some(Self::WhenSeen),
            "always" => Some(Self::Always),
            _ => None,
        }
    }

    fn show(&self) -> Option<Scalar> {
        let word = match self {
            Self::Never => "never",
            Self::WhenSeen => "when_seen",
            Self::Always => "always",
        };
        Some(Scalar::Text(word.to_owned()))
    }
}

impl Value for ConnectionString {
    const WANTED: &'static str = "must be a URL or a connection string";

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn read(text: &str) -> Result<Self, Problem> {
        text.parse().map_err(Problem::OfPart)
    }

    fn show(&self) -> Option<Scalar> {
        None
    }
}
