//! A report as data, with the feature `serde`: whether all is well, the exit status, and a list of findings.

use serde_core::Serialize;
use serde_core::ser::{SerializeStruct, Serializer};

use super::report::{Finding, Report};

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = serializer.serialize_struct("Report", 3)?;
        table.serialize_field("ok", &self.is_ok())?;
        table.serialize_field("exit_code", &self.exit_code())?;
        table.serialize_field("findings", &self.findings)?;
        table.end()
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = serializer.serialize_struct("Finding", 5)?;
        table.serialize_field("check", self.check.as_str())?;
        table.serialize_field("value", &self.value)?;
        table.serialize_field("limit", &self.limit)?;
        table.serialize_field("severity", self.severity.as_str())?;
        table.serialize_field("advice", &self.advice)?;
        table.end()
    }
}
