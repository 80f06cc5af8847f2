"""Prompt and label trie on a tokenizer small enough to check by hand."""

import pytest

from toolkit.contract.lens import Lens
from toolkit.contract.prompt import check_boundaries, frame_for, load_prompt, prepare_text
from toolkit.contract.trie import build_trie
from toolkit.errors import ModelError


class WordTokenizer:
    """Control tokens whole, then the pieces it is given, else single characters."""

    def __init__(self, *pieces: str, control: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")) -> None:
        self.control = control
        spec = load_prompt()
        self.pieces = (*pieces, *spec.questions.values(), "user", spec.prefill, spec.bridge, spec.close)
        self.known: dict[str, int] = {}

    def _id(self, piece: str) -> int:
        return self.known.setdefault(piece, len(self.known))

    def encode(self, text: str, *, control: bool = False) -> list[int]:
        result = []
        while text:
            candidates = (*(self.control if control else ()), *self.pieces)
            piece = next((p for p in candidates if text.startswith(p)), text[0])
            result.append(self._id(piece))
            text = text[len(piece) :]
        return result

    def control_id(self, token: str) -> int | None:
        return self._id(token) if token in self.control else None


def test_text_is_stripped_outside_and_untouched_inside() -> None:
    assert prepare_text(" \n a  b\u200d \t") == "a  b\u200d"
    assert prepare_text("bad \ud800 surrogate") == "bad ? surrogate"


def test_the_frame_follows_the_control_tokens_of_the_vocabulary() -> None:
    assert frame_for(WordTokenizer(), Lens.AUTHOR).name == "chatml"
    llama = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    assert frame_for(WordTokenizer(control=llama), Lens.AUTHOR).name == "llama3"
    with pytest.raises(ModelError, match="no known prompt frame"):
        frame_for(WordTokenizer(control=()), Lens.AUTHOR)


def test_the_prompt_that_others_see_is_head_text_tail() -> None:
    frame = frame_for(WordTokenizer(), Lens.READER)
    assert frame.render(" hi ") == "<|im_start|>user\nWhat does the reader hear?\nhi<|im_end|>\n"


def test_text_never_yields_control_tokens() -> None:
    tokenizer = WordTokenizer()
    assert len(tokenizer.encode("<|im_end|>")) > 1 == len(tokenizer.encode("<|im_end|>", control=True))


def test_a_head_over_its_budget_is_refused() -> None:
    tokenizer = WordTokenizer()
    tokenizer.pieces = ("user",)  # the question now falls into single characters
    with pytest.raises(ModelError, match="tokens before"):
        frame_for(tokenizer, Lens.AUTHOR)


def test_a_tokenizer_that_joins_pieces_is_refused() -> None:
    class Joining(WordTokenizer):
        def encode(self, text: str, *, control: bool = False) -> list[int]:
            return super().encode(text.replace('joy", "reason', 'joy"~"reason'), control=control)

    check_boundaries(WordTokenizer("joy"), ("joy",))
    with pytest.raises(ModelError, match="joins"):
        check_boundaries(Joining("joy"), ("joy",))


def test_trie_branches_only_where_labels_part() -> None:
    tokenizer = WordTokenizer("dis", "gust", "appro", "joy", "val")
    trie = build_trie(tokenizer, ["disgust", "disapproval", "joy"])
    ids = {piece: tokenizer.encode(piece)[0] for piece in tokenizer.pieces}
    assert [branch.path for branch in trie.branches] == [(), (ids["dis"],)]
    root, below = trie.branches
    assert dict(zip(root.tokens, root.members, strict=True)) == {ids["dis"]: (0, 1), ids["joy"]: (2,)}
    assert dict(zip(below.tokens, below.members, strict=True)) == {ids["gust"]: (0,), ids["appro"]: (1,)}


def test_a_label_that_begins_another_gets_a_leaf_of_its_own() -> None:
    tokenizer = WordTokenizer("joy", "ful")
    trie = build_trie(tokenizer, ["joy", "joyful"])
    assert len({trie.paths[0], trie.paths[1]}) == 2
    assert [branch.members for branch in trie.branches] == [((0, 1),), ((0,), (1,))] or [
        branch.members for branch in trie.branches
    ] == [((0, 1),), ((1,), (0,))]
