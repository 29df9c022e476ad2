from stormpsr_jax.live import webhook
from tests.support.receivers import Double, web_server


def event(number):
    return {"type": "event", "step_id": number}


def test_order_is_kept_where_the_server_fails_at_times(system, capsys):
    with Double(web_server(503, None, 302, 204, 500, 422)) as receiver:
        url = f"http://worker:p%40ss@127.0.0.1:{receiver.port}/hooks/secret?line=7"
        ours = webhook.Webhook(url, first_pause=0.01)
        for number in range(4):
            ours.send(event(number))
        receiver.wait(8)
        ours.close()
    assert receiver.steps() == [0, 0, 0, 0, 1, 1, 2, 3], (
        "422 refuses a record, and holds nothing up"
    )
    assert ours.dropped == 1
    keys = [headers["Idempotency-Key"] for _, _, headers in receiver.heads]
    assert len(set(keys[:4])) == 1
    assert len(set(keys)) == 4, "the same key for the same record alone"
    for _, path, headers in receiver.heads:
        assert path == "/hooks/secret?line=7", "redirects are not followed"
        assert headers["Content-Type"] == "application/json"
        assert headers["Authorization"] == "Basic d29ya2VyOnBAc3M="
    error = capsys.readouterr().err
    assert f"warning: http://127.0.0.1:{receiver.port}: answers with status 503" in error
    assert "status 302, a redirect, which is not followed" in error
    assert "refuses a record with status 422" in error
    assert "secret" not in error
    assert "p@ss" not in error
