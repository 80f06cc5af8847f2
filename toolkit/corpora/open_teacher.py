"""From what `--teacher` says to a teacher: the template, an endpoint by its URL, or a GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.corpora.answers import AnswerStore
from toolkit.corpora.ask_config import AskConfig
from toolkit.corpora.cot import Reader
from toolkit.corpora.model_teacher import ModelTeacher
from toolkit.corpora.teacher import TemplateTeacher
from toolkit.corpora.teachers import Teacher, TeacherError
from toolkit.errors import UsageError


@contextmanager
def open_teacher(name: str, config: AskConfig, answers: Path) -> Iterator[Callable[[Reader], Teacher]]:
    """What makes the teacher for an interpretable model; ``answers`` is where a model's answers are kept.

    Raises:
        UsageError: for a name that is neither ``template`` nor a URL nor a GGUF file.
        TeacherError: for an endpoint that does not answer or refuses the key, or a damaged file.
    """
    if name == "template":
        yield TemplateTeacher
    elif name.lower().startswith(("http://", "https://")):
        from toolkit.corpora.endpoint import Endpoint

        with AnswerStore(answers) as store, Endpoint(name, config) as endpoint:
            listed = endpoint.first_model()
            model = config.model or listed
            if model is None:
                raise TeacherError(f"The endpoint {endpoint.name} lists no model.", "Name one with --teacher-model.")
            with ModelTeacher(endpoint, model, config, store) as teacher:
                yield lambda _: teacher
    elif name.lower().endswith(".gguf"):
        from toolkit.corpora.local_teacher import LocalModel

        alone = config.model_copy(update={"concurrency": 1})
        with (
            AnswerStore(answers) as store,
            LocalModel(Path(name), alone) as local,
            ModelTeacher(local, local.identity, alone, store) as teacher,
        ):
            yield lambda _: teacher
    else:
        raise UsageError(f"There is no teacher {name!r}.", "Use template, the URL of an endpoint, or a GGUF file.")
