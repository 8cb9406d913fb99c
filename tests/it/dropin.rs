//! Code written for deadpool-postgres runs on the guard: query modules of code generators, migrations, and built
//! queries. Deadpool's own examples and tests run with a few lines changed.

mod built;
mod generated;
mod migrations;
mod upstream;
