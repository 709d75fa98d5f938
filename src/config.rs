//! Configuration: the file as written → the validated form that the rest of the program sees.

mod model;

pub use model::*;
