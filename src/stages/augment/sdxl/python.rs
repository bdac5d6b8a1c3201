//! Finds the program that starts `inpaint.py`: the Python that the user names, or uv.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::super::StageError;

/// The environment variable that names a Python.
const VARIABLE: &str = "PATCHFLOW_PYTHON";

/// Returns the command line that starts the program, without the path of the program. Only looks for files and starts
/// nothing.
///
/// # Errors
/// [`StageError::Data`] if there is neither a named Python nor uv.
pub(super) fn find(environment: &BTreeMap<String, String>) -> Result<Vec<String>, StageError> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    if let Some(named) = environment.get(VARIABLE).filter(|named| !named.is_empty()) {
        let python = locate(named, environment).ok_or_else(|| {
            StageError::data(
                format!("`{VARIABLE}` is `{named}`, which is not a program"),
                "set it to the path of a Python that has diffusers, such as `/home/me/venv/bin/python`; or unset it and install uv",
            )
        })?;
        return Ok(vec![text(python), "-u".to_owned()]);
    }
    let uv = locate("uv", environment).ok_or_else(|| {
        StageError::data(
            format!("`sdxl-inpaint` needs a Python with diffusers, but uv is not installed and `{VARIABLE}` is not set"),
            format!(
                "install uv, which installs Python and the packages; or set {VARIABLE} to a Python that has torch, diffusers, transformers and accelerate"
            ),
        )
    })?;
    Ok([&text(uv), "run", "--script"].map(str::to_owned).to_vec())
}

/// Finds a program by path, or by name in `PATH`. Returns its absolute path, or `None` if it is not executable.
fn locate(program: &str, environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        // Links are not resolved: the Python of a virtual environment is a link and must be started by its own path.
        return std::path::absolute(program).ok().filter(is_program);
    }
    let folders = environment.get("PATH")?.split(':').filter(|folder| !folder.is_empty());
    folders.map(|folder| Path::new(folder).join(program)).find(is_program)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_named_python_is_preferred_to_uv_and_without_both_there_is_a_hint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        for (name, mode) in [("uv", 0o755), ("python", 0o755), ("text", 0o644)] {
            let file = folder.path().join(name);
            std::fs::write(&file, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let found = find(&environment(&[("PATH", path)])).unwrap();
        assert_eq!(found, [&format!("{path}/uv"), "run", "--script"]);
        let found = find(&environment(&[("PATH", path), (VARIABLE, "python")])).unwrap();
        assert_eq!(found, [&format!("{path}/python"), "-u"]);
        let text = format!("{path}/text");
        for wrong in [text.as_str(), "/nowhere/python", "no-such-python", path] {
            let error = find(&environment(&[("PATH", path), (VARIABLE, wrong)])).unwrap_err();
            assert!(error.to_string().contains(wrong) && error.help().unwrap().contains("diffusers"));
        }
        let error = find(&environment(&[("PATH", "/nowhere"), (VARIABLE, "")])).unwrap_err();
        assert!(error.help().unwrap().contains(VARIABLE) && error.help().unwrap().contains("install uv"));
        assert!(find(&BTreeMap::new()).is_err());
    }
}
