//! One setting: from text, and back to what a file has in its place.

use std::any::Any;
use std::str::FromStr;
use std::time::Duration;

use crate::conn::Reset;
use crate::connection_string::ConnectionString;
use crate::error::ConfigError;
use crate::policy::Shedding;

/// A message shows no more of a value than this.
const LONGEST_SHOWN: usize = 60;

/// After how long, if ever. Written as a duration, or `"never"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expiry {
    /// Not at all.
    Never,
    /// After this time.
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

/// What stands in a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Text(String),
    Whole(u64),
    Fraction(f64),
    Flag(bool),
}

/// Why a text is no value of a setting.
#[derive(Debug)]
pub(super) enum Problem {
    /// It is no value of this kind.
    NotOfKind(&'static str),
    /// A part of it cannot be used, and the whole may hold a password.
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

/// A setting that may be given or not.
pub(super) trait Field {
    fn read(&mut self, text: &str) -> Result<(), Problem>;
    /// `None`: not given, or not to be written down.
    fn show(&self) -> Option<Scalar>;
    /// Another of the same kind is taken over, if it is given.
    fn take_from(&mut self, other: &mut dyn Field);
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<T: HumanDuration> Field for Option<T> {
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

/// What the value of a setting may be.
pub(super) trait HumanDuration: Sized + 'static {
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

impl HumanDuration for usize {
    const WANTED: &'static str = WHOLE;

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Whole(*self as u64))
    }
}

impl HumanDuration for u64 {
    const WANTED: &'static str = WHOLE;

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Whole(*self))
    }
}

impl HumanDuration for u32 {
    const WANTED: &'static str = WHOLE;

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Whole((*self).into()))
    }
}

impl HumanDuration for u8 {
    const WANTED: &'static str = "must be a whole number, 0 to 255";

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Whole((*self).into()))
    }
}

impl HumanDuration for f64 {
    const WANTED: &'static str = "must be a number";

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Fraction(*self))
    }
}

impl HumanDuration for bool {
    const WANTED: &'static str = "must be true or false";

    fn parse(text: &str) -> Option<Self> {
        parse(text)
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Flag(*self))
    }
}

impl HumanDuration for String {
    const WANTED: &'static str = "must be a text";

    fn parse(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Text(self.clone()))
    }
}

impl HumanDuration for Duration {
    const WANTED: &'static str = "must be a duration with its unit, such as \"250ms\", \"5s\" or \"30 min\"";

    fn parse(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok()
    }

    fn show(&self) -> Option<Scalar> {
        Some(Scalar::Text(humantime::format_duration(*self).to_string()))
    }
}

impl HumanDuration for Expiry {
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

impl HumanDuration for Shedding {
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

impl HumanDuration for Reset {
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

impl HumanDuration for ConnectionString {
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
