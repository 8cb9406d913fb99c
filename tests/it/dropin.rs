//! Code written for deadpool-postgres runs on the guard: query modules of code generators, migrations, built queries,
//! and deadpool's own examples and tests with a few lines changed.

mod built;
mod generated;
mod migrations;
mod upstream;
