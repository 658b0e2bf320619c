"""Which groups of conversations make up train, valid and test."""

import hashlib
from collections.abc import Mapping

FRACTION = 0.1  # of the conversations, for valid and for test


def assign(sizes: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, str]:
    """Returns group -> split, decided by hashes of the groups' names.

    Each split but train takes groups in the order of their hashes until it has its share; a group
    that would more than double the share goes to train.

    Args:
      sizes: group -> number of contexts.
      shares: split -> share of all contexts, for all splits but train.

    Raises:
      ValueError: if there are too few groups for every split to get one.
    """
    if len(sizes) < 1 + len(shares):
        raise ValueError(
            f"{len(sizes)} conversations that share nothing; at least {1 + len(shares)} are "
            "needed, so that train, valid and test get one each. Export more chats."
        )
    order = sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    splits = dict.fromkeys(order, "train")
    for place, (split_name, share) in enumerate(shares.items()):
        wanted, have = share * sum(sizes.values()), 0
        free = [name for name in order if splits[name] == "train"]
        small = [name for name in free if sizes[name] <= 2 * wanted]
        spare = len(free) - (len(shares) - place)  # train and later splits need one each
        # One at least; where all are large, the smallest.
        for name in (small or [min(free, key=lambda one: sizes[one])])[:spare]:
            if have >= wanted:
                break
            splits[name] = split_name
            have += sizes[name]
    return splits
