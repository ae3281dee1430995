//! JSON at the speed that logging needs: [`ser`] writes any `Serialize` into a bounded buffer, [`scan`] splits a line without building a tree.

pub(crate) mod escape;
pub(crate) mod push;
pub(crate) mod scan;
pub(crate) mod ser;
