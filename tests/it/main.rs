//! Tests against a real server.
mod throwaway;
