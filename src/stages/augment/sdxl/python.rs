//! Finds the program that starts `inpaint.py`: the Python that the user names, or uv.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::super::super::{StageError, Variables};

/// The environment variable that names a Python.
const VARIABLE: &str = "PATCHFLOW_PYTHON";

/// Returns the command line that starts the program, without the path of the program. Only looks for files and starts
/// nothing.
///
/// # Errors
/// [`StageError::Data`] if there is neither a named Python nor uv.
pub(super) fn find(environment: &Variables) -> Result<Vec<String>, StageError> {
    let text = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|path| {
            StageError::data(
                format!("the path of the program `{}` is not UTF-8", path.display()),
                format!("set {VARIABLE} to a program whose path is UTF-8"),
            )
        })
    };
    if let Some(named) = environment.get(VARIABLE).filter(|named| !named.is_empty()) {
        let python = locate(named, environment).ok_or_else(|| {
            StageError::data(
                format!("`{VARIABLE}` is `{}`, which is not a program", named.display()),
                "set it to the path of a Python that has diffusers, such as `/home/me/venv/bin/python`; or unset it and install uv",
            )
        })?;
        return Ok(vec![text(python)?, "-u".to_owned()]);
    }
    let uv = locate(OsStr::new("uv"), environment).ok_or_else(|| {
        StageError::data(
            format!("`sdxl-inpaint` needs a Python with diffusers, but uv is not installed and `{VARIABLE}` is not set"),
            format!(
                "install uv, which installs Python and the packages; or set {VARIABLE} to a Python that has torch, diffusers, transformers and accelerate"
            ),
        )
    })?;
    Ok(vec![text(uv)?, "run".to_owned(), "--script".to_owned()])
}

/// Finds a program by path, or by name in `PATH`. Returns its absolute path, or `None` if it is not executable.
fn locate(program: &OsStr, environment: &Variables) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.as_encoded_bytes().contains(&b'/') {
        // Links are not resolved: the Python of a virtual environment is a link and must be started by its own path.
        return std::path::absolute(program).ok().filter(is_program);
    }
    let mut folders =
        std::env::split_paths(environment.get("PATH")?).filter(|folder| !folder.as_os_str().is_empty());
    folders.find_map(|folder| Some(folder.join(program)).filter(is_program))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect()
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
        assert!(find(&Variables::new()).is_err());
    }
}
