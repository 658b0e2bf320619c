"""What an error suggests in place of a name that is not known."""

from int_ra_jax.common.nearest import did_you_mean, nearest


def test_the_nearest_name_is_found_however_unlike_it_is_unless_it_must_be_like():
    known = ["cosine", "linear"]
    assert nearest("cosin", known) == "cosine"
    assert nearest("xyz", known) in known
    assert nearest("xyz", known, cutoff=0.6) == nearest("cosin", []) == ""


def test_a_message_names_up_to_three_names_that_are_much_alike_and_else_none():
    assert did_you_mean("joy", {"joy1": 0, "joy2": 1, "joy3": 2, "joy4": 3}).count("'") == 6
    assert did_you_mean("jo", ["joy", "fear"]) == ". Did you mean 'joy'?"
    assert did_you_mean("anger", ["joy"]) == ""
