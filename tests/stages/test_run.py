import jax
import pytest

from stormpsr_jax import main
from stormpsr_jax.stages import run
from tests.support import lantern


def test_compiled_programs_are_kept_for_the_user_unless_jax_was_told_where(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        for told, kept in (("mine", "mine"), (None, str(tmp_path / "stormpsr_jax/compiled"))):
            jax.config.update("jax_compilation_cache_dir", told)
            run._keep_compiled()
            assert jax.config.jax_compilation_cache_dir == kept
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("system")
def test_what_is_wrong_with_what_is_to_be_rendered_ends_the_run_with_its_status(tmp_path, capfd):
    procedure = lantern.write(tmp_path)[1]
    (tmp_path / "empty").mkdir()
    words = ["--config=cad", f"--config.procedure={procedure}", f"--workdir={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as end:
        main.main([*words, f"--config.data.synthetic.meshes={tmp_path / 'empty'}"])
    assert end.value.code == 2
    assert f"error: {tmp_path / 'empty'}: no mesh for " in capfd.readouterr().err
