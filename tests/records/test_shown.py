"""What Python shows of a record fits on a screen, also where hundreds of clients have scores."""

from fedrobust.records.schema.run import PerUser, Score


def test_long_parts_are_told_by_their_length_and_absent_ones_not_at_all() -> None:
    shares = {str(i): i / 300 for i in range(300)}
    users = PerUser(accuracy=shares, robust_accuracy=shares, examples=dict.fromkeys(shares, 1))
    found = Score(accuracy=2 / 3, robust_accuracy=0.5, examples=300, per_client=users)
    many = "<300 entries>"
    assert (
        repr(found)
        == str(found)
        == (
            "Score(accuracy=0.666667, robust_accuracy=0.5, examples=300, per_client="
            f"PerUser(accuracy={many}, robust_accuracy={many}, examples={many}))"
        )
    )
    few = PerUser(accuracy={"a": 1.0}, robust_accuracy={"a": 0.0}, examples={"a": 2})
    assert repr(few) == "PerUser(accuracy={'a': 1}, robust_accuracy={'a': 0}, examples={'a': 2})"
    assert found.accuracy == 2 / 3, "only what is shown is rounded"
