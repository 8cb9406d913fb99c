//! The macro that describes a table of settings once: each line is a key, its kind, and the setter of the same name.

use super::field::Field;

/// Each setting of a table with its whole key.
pub(super) type Fields<'a> = Vec<(String, &'a mut dyn Field)>;

/// Defines a public struct with an optional field for each setting. Its method `fields` returns the fields with their
/// keys, of which `prefix` is the beginning. Its method `apply_to` passes each given value to its setter.
///
/// `by_hand` lists the settings without a setter of the same name: `apply.rs` applies them. `setters` lists the others.
/// `tables` lists the tables within this table, `tables_by_hand` those without a setter of the same name. `maps` lists
/// the tables with a table for each name that the owner chooses, and `values` those with a value for each such name.
macro_rules! table {
    (
        $(#[$about:meta])*
        $table:ident of $target:ident;
        $(by_hand { $($(#[$about_other:meta])* $other:ident: $other_kind:ty,)* })?
        $(setters { $($key:ident: $kind:ty,)* })?
        $(tables { $($inner:ident: $inner_table:ty,)* })?
        $(tables_by_hand { $($(#[$about_part:meta])* $part:ident: $part_table:ty,)* })?
        $(maps { $($map:ident: $map_table:ty,)* })?
        $(values { $($names:ident: $of_name:ty,)* })?
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq)]
        #[non_exhaustive]
        pub struct $table {
            $($($(#[$about_other])* pub $other: Option<$other_kind>,)*)?
            $($(#[doc = concat!("[`", stringify!($target), "::", stringify!($key), "`]")] pub $key: Option<$kind>,)*)?
            $($(#[doc = concat!("[`", stringify!($target), "::", stringify!($inner), "`]")] pub $inner: $inner_table,)*)?
            $($($(#[$about_part])* pub $part: $part_table,)*)?
            $($(#[doc = concat!("[`", stringify!($target), "::", stringify!($map), "`], by name")] pub $map: std::collections::BTreeMap<String, $map_table>,)*)?
            $($(#[doc = concat!("[`", stringify!($target), "::", stringify!($names), "`], by name")] pub $names: std::collections::BTreeMap<String, Option<$of_name>>,)*)?
        }

        impl $table {
            /// In the order of a file: the settings of a table stand together, after those outside of it.
            fn fields(&mut self, prefix: &str) -> $crate::settings::table::Fields<'_> {
                let key = |name: &str| format!("{prefix}{name}");
                let own: $crate::settings::table::Fields<'_> = vec![
                    $($((key(stringify!($other)), &mut self.$other),)*)?
                    $($((key(stringify!($key)), &mut self.$key),)*)?
                ];
                own.into_iter()
                    $($(.chain(self.$inner.fields(&key(concat!(stringify!($inner), ".")))))*)?
                    $($(.chain(self.$part.fields(&key(concat!(stringify!($part), ".")))))*)?
                    $($(.chain(self.$map.iter_mut().flat_map(|(name, table)| {
                        table.fields(&key(&format!("{}.{name}.", stringify!($map))))
                    })))*)?
                    $($(.chain(self.$names.iter_mut().map(|(name, value)| -> (String, &mut dyn $crate::settings::field::Field) {
                        (key(&format!("{}.{name}", stringify!($names))), value)
                    })))*)?
                    .collect()
            }

            $(
                fn apply_to(&self, target: $target) -> $target {
                    $(let target = $crate::settings::table::given(target, &self.$key, $target::$key);)*
                    target
                }
            )?
        }
    };
}

pub(super) use table;

/// Passes `value` to the setter `set` if it is given.
pub(super) fn given<B, T: Clone>(builder: B, value: &Option<T>, set: impl FnOnce(B, T) -> B) -> B {
    match value {
        Some(value) => set(builder, value.clone()),
        None => builder,
    }
}
