//! Finds in the text of a request what it may leave in the session, beyond its transaction.
//!
//! The listener searches the text once, when the driver sends it. A wrong "yes" costs the next lease a reset. A wrong
//! "no" lets one caller see what another has set. So text that the search does not understand counts as a trace. The
//! search cannot see what a function does inside, as in `SELECT f()`, unless its name is one of [`FUNCTIONS`].

/// Functions of PostgreSQL and its extensions that change the session. `pg_temp` is the schema of temporary objects.
const FUNCTIONS: [&[u8]; 6] =
    [b"set_config", b"pg_advisory_lock", b"pg_try_advisory_lock", b"dblink_connect", b"setseed", b"pg_temp"];

/// Statements that change the session, or that run code that may change it.
const STATEMENTS: [&[u8]; 7] = [b"RESET", b"LISTEN", b"UNLISTEN", b"DISCARD", b"LOAD", b"DO", b"CALL"];

/// What a request may leave in the session.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traces {
    pub(super) leaves_something: bool,
    /// Whether that may be a statement prepared by SQL.
    pub(super) may_prepare: bool,
    /// The number of commands that leave nothing, although the tag in their answer looks as if they did: `SET LOCAL`, a
    /// cursor without HOLD.
    pub(super) harmless: u32,
}

impl Traces {
    /// The traces of a text whose end is unknown.
    pub(super) const UNKNOWN: Self = Self { leaves_something: true, may_prepare: true, harmless: 0 };

    pub(super) fn of(sql: &[u8]) -> Self {
        let leaves_something = FUNCTIONS.iter().any(|name| calls(sql, name));
        let mut traces = Self { leaves_something, ..Self::default() };
        let mut words = Words { rest: sql, is_odd: false };
        while !words.rest.is_empty() {
            traces.add_statement(&mut words);
        }
        // U&"..." may spell a name in escapes.
        let is_odd = words.is_odd || sql.windows(3).any(|part| part.eq_ignore_ascii_case(b"U&\""));
        traces.leaves_something |= is_odd;
        traces.may_prepare |= is_odd;
        traces
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.leaves_something |= other.leaves_something;
        self.may_prepare |= other.may_prepare;
        self.harmless += other.harmless;
    }

    /// Adds the traces of the words up to the next semicolon.
    fn add_statement(&mut self, words: &mut Words<'_>) {
        let Some(first) = words.next() else { return };
        let is = |word: &[u8], other: &[u8]| word.eq_ignore_ascii_case(other);
        let one_of = |word: &[u8], others: &[&[u8]]| others.iter().any(|other| is(word, other));
        let second = words.next().unwrap_or_default();
        let (mut before, mut word) = (first, second);
        let (mut is_temporary, mut is_held) = (false, false);
        while !word.is_empty() {
            is_temporary |= one_of(word, &[b"TEMP", b"TEMPORARY"])
                && one_of(before, &[b"CREATE", b"REPLACE", b"LOCAL", b"GLOBAL", b"INTO"]);
            is_held |= is(word, b"HOLD") && is(before, b"WITH");
            (before, word) = (word, words.next().unwrap_or_default());
        }
        let is_local = is(first, b"SET") && one_of(second, &[b"LOCAL", b"TRANSACTION", b"CONSTRAINTS"]);
        let is_cursor = is(first, b"DECLARE");
        if is_local || (is_cursor && !is_held) {
            self.harmless += 1;
            return;
        }
        let is_prepared = is(first, b"PREPARE") && !is(second, b"TRANSACTION");
        self.may_prepare |= is_prepared || one_of(first, &[b"DO", b"CALL"]);
        self.leaves_something |=
            is_temporary || is_cursor || is_prepared || is(first, b"SET") || one_of(first, &STATEMENTS);
    }
}

/// Returns whether the text names a function, also in quotes or within other words. `set_config` with `true` as its
/// last argument does not count, because it is for the transaction only.
fn calls(sql: &[u8], name: &[u8]) -> bool {
    let mut rest = sql;
    while let Some(at) = rest.windows(name.len()).position(|part| part.eq_ignore_ascii_case(name)) {
        rest = &rest[at + name.len()..];
        if name != FUNCTIONS[0] || !is_local_call(rest) {
            return true;
        }
    }
    false
}

/// Returns whether the text begins with arguments in parentheses, of which the last one is a plain `true`.
fn is_local_call(text: &[u8]) -> bool {
    let Some((b'(', mut rest)) = text.trim_ascii_start().split_first().map(|(first, rest)| (*first, rest)) else {
        return false;
    };
    let mut last = rest;
    let mut depth = 0;
    while let Some((first, after)) = rest.split_first() {
        match first {
            b'\'' | b'"' => {
                let Some(end) = after.iter().position(|byte| byte == first) else { return false };
                if after[..end].contains(&b'\\') {
                    return false;
                }
                rest = &after[end + 1..];
                continue;
            }
            b'(' => depth += 1,
            b')' if depth == 0 => {
                let last = &last[..last.len() - rest.len()];
                return last.trim_ascii().eq_ignore_ascii_case(b"true");
            }
            b')' => depth -= 1,
            b',' if depth == 0 => last = after,
            // An escape, a comment or a quoted body: not worth parsing.
            b'\\' | b'$' if after.first().is_some_and(|next| !next.is_ascii_digit()) => return false,
            b'-' if after.first() == Some(&b'-') => return false,
            b'/' if after.first() == Some(&b'*') => return false,
            _ => {}
        }
        rest = after;
    }
    false
}

/// The words of SQL outside of quotes and comments.
struct Words<'a> {
    rest: &'a [u8],
    /// Whether a quotation has a backslash in it, or no end. Then its end depends on settings and prefixes.
    is_odd: bool,
}

impl<'a> Words<'a> {
    /// Returns the next word of the statement. `None` at the end of the statement, which is consumed.
    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let (first, after) = self.rest.split_first()?;
            match first {
                b';' => {
                    self.rest = after;
                    return None;
                }
                b'\'' | b'"' => self.skip_past(after, &[*first]),
                b'-' if after.first() == Some(&b'-') => self.skip_past(after, b"\n"),
                b'/' if after.first() == Some(&b'*') => self.skip_comment(),
                b'$' => self.skip_body(),
                _ if is_part(*first) => {
                    let end = self.rest.iter().position(|byte| !is_part(*byte)).unwrap_or(self.rest.len());
                    let word = &self.rest[..end];
                    self.rest = &self.rest[end..];
                    return Some(word);
                }
                _ => self.rest = after,
            }
        }
    }

    fn skip_past(&mut self, from: &'a [u8], end: &[u8]) {
        let at = from.windows(end.len()).position(|part| part == end);
        let is_line = end == b"\n";
        let quoted = &from[..at.unwrap_or(from.len())];
        self.is_odd |= !is_line && (at.is_none() || (end == b"'" && quoted.contains(&b'\\')));
        self.rest = at.map_or(&[], |at| &from[at + end.len()..]);
    }

    /// Skips a comment. Comments nest.
    fn skip_comment(&mut self) {
        let mut depth = 0;
        loop {
            match self.rest {
                [b'/', b'*', ..] => (depth, self.rest) = (depth + 1, &self.rest[2..]),
                [b'*', b'/', ..] => (depth, self.rest) = (depth - 1, &self.rest[2..]),
                [_, after @ ..] => self.rest = after,
                [] => {
                    self.is_odd = true;
                    return;
                }
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Skips `$body$ ... $body$`, or a parameter.
    fn skip_body(&mut self) {
        let tag = self.rest[1..].iter().position(|byte| !is_part(*byte) || *byte == b'$').map(|end| end + 1);
        match tag.filter(|end| self.rest[*end] == b'$' && !self.rest[1].is_ascii_digit()) {
            Some(end) => {
                let (tag, body) = self.rest.split_at(end + 1);
                self.skip_past(body, tag);
            }
            None => self.rest = &self.rest[1..],
        }
    }
}

/// Returns whether the byte can be a part of a word.
fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaves(sql: &str) -> bool {
        Traces::of(sql.as_bytes()).leaves_something
    }

    fn harmless(sql: &str) -> u32 {
        let traces = Traces::of(sql.as_bytes());
        assert!(!traces.leaves_something, "{sql}");
        traces.harmless
    }

    #[test]
    fn changes_of_the_session_are_found() {
        for sql in [
            "SET app.tenant = 'a'",
            "set session statement_timeout = 0",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            " \n-- why\n/* /* nested */ */ set role bob",
            "SELECT 1; SET a.b = 1",
            "SET LOCAL a.b = 1; SET a.b = 1",
            "RESET ALL",
            "LISTEN news",
            "unlisten *",
            "DISCARD TEMP",
            "LOAD 'auto_explain'",
            "DO $$ BEGIN PERFORM 1; END $$",
            "CALL close_month()",
            "PREPARE p AS SELECT 1",
            "prepare p (int) as select $1",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "CREATE TEMP TABLE t (id int)",
            "create temporary view v as select 1",
            "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
            "CREATE LOCAL TEMP TABLE t (id int)",
            "SELECT 1 AS one INTO TEMP t",
            "WITH x AS (SELECT 1) SELECT * INTO TEMPORARY TABLE t FROM x",
            "CREATE TABLE pg_temp.t (id int)",
            "SELECT set_config('app.tenant', $1, false)",
            "SELECT pg_catalog.SET_CONFIG('a.b', 'true', f(true))",
            "SELECT set_config('a.b', 'c', $1)",
            "SELECT set_config('a.b', 'c', true), set_config('a.b', 'c', false)",
            "SELECT \"set_config\"('a.b', 'c', false)",
            "SELECT pg_advisory_lock(7)",
            "SELECT pg_try_advisory_lock_shared(7)",
            "SELECT dblink_connect('x', 'dbname=y')",
            "SELECT setseed(0.5)",
            "SELECT 'it''s'; SET a.b = 1",
            "SELECT \"a;b\", $x$ ; $x$; SET a.b = 1",
            "SELECT E'a\\''; PREPARE p AS SELECT 1 --'",
            "SELECT set_config('a.b', E'\\', true, ', false) --')",
            "SELECT 'no end",
            "SELECT U&\"set\\005fconfig\"('a.b', 'c', false)",
            "SELECT /* no end",
        ] {
            assert!(leaves(sql), "{sql}");
        }
    }

    #[test]
    fn other_statements_leave_no_trace() {
        for sql in [
            "",
            ";;",
            "SELECT 1",
            "UPDATE items SET stock = 1",
            "INSERT INTO items VALUES ($1) ON CONFLICT (id) DO UPDATE SET stock = 1",
            "SELECT temp, temporary FROM weather",
            "CREATE TABLE items (id int)",
            "CREATE INDEX ON items (id)",
            "ALTER ROLE bob SET work_mem = '1GB'",
            "PREPARE TRANSACTION 'x'",
            "SELECT ';SET a.b = 1'",
            "SELECT $$;SET a.b = 1$$, $1, $tag$ ;SET $tag$",
            "-- SET a.b = 1",
            "SELECT /* ;SET a.b = 1; */ 1",
            "SELECT pg_advisory_xact_lock(7), pg_advisory_unlock(7)",
            "SELECT set_config('app.tenant', $1, true)",
            "SELECT set_config('a.b', coalesce($1, '(),'), TRUE )",
            "DEALLOCATE s1",
        ] {
            assert!(!leaves(sql), "{sql}");
        }
    }

    #[test]
    fn harmless_commands_are_counted() {
        assert_eq!(harmless("SET LOCAL a.b = 1"), 1);
        assert_eq!(harmless("BEGIN; set transaction isolation level serializable; SET CONSTRAINTS ALL DEFERRED"), 2);
        assert_eq!(harmless("DECLARE c NO SCROLL CURSOR WITHOUT HOLD FOR SELECT 1"), 1);
        assert_eq!(harmless("SELECT 1"), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

        #[test]
        fn no_text_panics(sql in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Traces::of(&sql);
        }

        #[test]
        fn every_search_ends(sql in "[-'\"$/*;a(,) ]{0,60}") {
            let _ = Traces::of(sql.as_bytes());
            let _ = Traces::of(format!("set_config({sql}").as_bytes());
        }
    }
}
