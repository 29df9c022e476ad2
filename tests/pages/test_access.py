import pytest

from stormpsr_jax.pages import access

TOKEN = "a-token-of-24-characters"


@pytest.mark.parametrize(
    ("text", "address", "is_loopback"),
    [
        ("", ("127.0.0.1", 8765), True),
        ("80", ("127.0.0.1", 80), True),
        ("0", ("127.0.0.1", 0), True),
        ("localhost:99", ("127.0.0.1", 99), True),
        ("127.0.0.9:99", ("127.0.0.9", 99), True),
        ("[::1]:99", ("::1", 99), True),
        ("0.0.0.0:99", ("0.0.0.0", 99), False),
        ("[::]:99", ("::", 99), False),
        ("192.168.0.3:99", ("192.168.0.3", 99), False),
        ("station.local:99", ("station.local", 99), False),
    ],
)
def test_parse_port_or_host_and_port(text, address, is_loopback):
    assert access.parse(text) == address
    assert access.parse(text).is_loopback == is_loopback


@pytest.mark.parametrize(
    "text", ["x", ":80", "host:x", "99999", "::1:80", "[::1]", "a@host:80", "²", "host:80/x"]
)
def test_parse_errors_name_the_value(text):
    with pytest.raises(ValueError, match=r"--serve=.*: must be PORT, HOST:PORT or") as error:
        access.parse(text)
    assert text in str(error.value)


def test_read_token_file_before_variable(tmp_path):
    variables = {access.TOKEN: TOKEN}
    assert access.read_token(None, variables) == TOKEN
    assert access.read_token(None, {}) is None
    assert access.read_token(None, {access.TOKEN: ""}) is None
    file = tmp_path / "token"
    file.write_text("another-token-of-a-file\n")
    file.chmod(0o640)
    assert access.read_token(str(file), variables) == "another-token-of-a-file"
    for mode in (0o644, 0o602):
        file.chmod(mode)
        with pytest.raises(ValueError, match=f"everybody may open it .mode {mode:o}.; chmod 600 "):
            access.read_token(str(file))


@pytest.mark.parametrize(
    "text",
    ["short", "x" * 1001, "has a space in its middle", "ü" * 20, "passwordpassword",
     "1234567890123456", "abcdefghijklmnop", "aabbccddeeff0011"],
)  # fmt: skip
def test_a_token_that_can_be_guessed_is_refused_and_not_shown(text):
    said = r"\$STORMPSR_TOKEN: (a token has at least 16 visible|this token is too regular)"
    with pytest.raises(ValueError, match=said) as error:
        access.read_token(None, {access.TOKEN: text})
    assert text not in str(error.value)
