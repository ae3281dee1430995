//! The extension module `predlog._native`.

mod asgi;
mod batch;
mod body;
mod call;
mod columns;
mod encode;
mod ending;
mod fields;
mod forks;
mod frame;
mod json;
mod keys;
mod logger;
mod outcome;
mod told;
mod totals;
mod walk;
mod wsgi;

use pyo3::prelude::*;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program `predlog` with these arguments, of which the first is its name, and returns its exit code.
#[pyfunction]
fn run(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    let code = py.detach(|| predlog::cli::run(arguments));
    // An ExitCode does not tell its number, but it can be compared.
    (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(1)
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // A server may read its store by Python's own `sqlite3`.
    predlog::sink::sqlite::lock_open_files();
    forks::watch();
    // What says why nothing is logged: a fork is no moment to import it.
    module.py().import("logging")?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<logger::Logger>()?;
    call::add_log(&module.py().get_type::<logger::Logger>())?;
    module.add_class::<json::Json>()?;
    module.add_class::<outcome::Outcome>()?;
    module.add_function(wrap_pyfunction!(ending::end_all, module)?)?;
    module.add_function(wrap_pyfunction!(forks::forking, module)?)?;
    module.add_function(wrap_pyfunction!(forks::settle, module)?)?;
    module.add_function(wrap_pyfunction!(asgi::log_asgi, module)?)?;
    module.add_function(wrap_pyfunction!(wsgi::log_wsgi, module)?)?;
    module.add_function(wrap_pyfunction!(run, module)?)
}
