//! What starts `inpaint.py`: the Python that the user names, or uv.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::super::StageError;

/// The variable that names a Python.
const VARIABLE: &str = "PATCHFLOW_PYTHON";

/// What starts it, up to the program's path. Nothing is started to find out.
///
/// # Errors
/// [`StageError::Data`] where neither is there.
pub(super) fn find(environment: &BTreeMap<String, String>) -> Result<Vec<String>, StageError> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    if let Some(named) = environment.get(VARIABLE).filter(|named| !named.is_empty()) {
        let python = locate(named, environment).ok_or_else(|| {
            StageError::data(
                format!("`{VARIABLE}` is `{named}`, which is no program"),
                "give the path of a Python that has diffusers, such as `/home/me/venv/bin/python`; or unset it and install uv",
            )
        })?;
        return Ok(vec![text(python), "-u".to_owned()]);
    }
    let uv = locate("uv", environment).ok_or_else(|| {
        StageError::data(
            "`sdxl-inpaint` needs a Python with diffusers, and neither uv nor a Python of yours is named",
            format!(
                "install uv, which brings Python and the packages by itself; or set {VARIABLE} to a Python that has torch, diffusers, transformers and accelerate"
            ),
        )
    })?;
    Ok([&text(uv), "run", "--script"].map(str::to_owned).to_vec())
}

/// The program of that path, or of that name on `PATH`, as an absolute path.
fn locate(program: &str, environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        // Not resolved: a virtual environment's Python is a link that must be started by its own path.
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
    fn a_named_python_goes_before_uv_and_without_both_the_remedy_is_told() {
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
