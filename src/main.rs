//! The command line: see `predlog --help`.

fn main() -> std::process::ExitCode {
    predlog::cli::main()
}
