"""The language of a question, among those that we have sentences of our own in."""

from streams.terms import fold

_NO_ANSWER = {
    "en": "The documents hold no answer to this question.",
    "es": "Los documentos no contienen una respuesta a esta pregunta.",
    "pt": "Os documentos não contêm uma resposta a esta pergunta.",
    "vi": "Tài liệu không có câu trả lời cho câu hỏi này.",
}

_WITHHELD = {
    "en": "This answer rested on a document that has been deleted, or that you may no longer read. Please ask again.",
    "es": "Esta respuesta se basaba en un documento eliminado, o que usted ya no puede leer. Pregunte de nuevo.",
    "pt": "Esta resposta baseava-se em um documento apagado, ou que você não pode mais ler. Pergunte de novo.",
    "vi": "Câu trả lời này dựa trên một tài liệu đã bị xóa, hoặc bạn không còn quyền đọc. Vui lòng hỏi lại.",
}

# Words that questions are made of, with their diacritics: two languages rarely share two of them.
_MARKERS: dict[str, str] = {
    "en": " what which who whom whose when where why how is are was were does did do the of to in many ",
    "es": " qué cuál cuáles quién quiénes cuándo dónde cómo cuánto cuántos el la los las del en es fue y ",
    "pt": " qual quais quem quando onde quanto quantos o os as do da dos das em no na é foi e que são ",
    "vi": " là gì ai nào khi ở đâu sao bao nhiêu của và những được trong có không thế một các đã ",
}

_PLAIN_MARKERS = {language: fold(markers) for language, markers in _MARKERS.items()}

# Of the markers without their diacritics, what is a word of another language too.
_AMBIGUOUS = frozenset({"the", "o", "a", "co", "da", "va"})


def language_of(question: str) -> str:
    """``en``, ``es``, ``pt`` or ``vi``; ``en`` where nothing speaks for another. People leave diacritics out."""
    found = question.lower().replace("?", " ").replace("¿", " ").replace(",", " ").split()
    if question.isascii():
        found = [word for word in found if word not in _AMBIGUOUS]
    markers_of = _PLAIN_MARKERS if question.isascii() else _MARKERS
    counts = {language: sum(f" {word} " in markers for word in found) for language, markers in markers_of.items()}
    best = max(counts, key=lambda language: (counts[language], language == "en"))
    return best if counts[best] else "en"


def no_answer(question: str) -> str:
    """That the documents hold no answer, in the question's language."""
    return _NO_ANSWER[language_of(question)]


def withheld(question: str) -> str:
    """That an answer is not shown any more, in the question's language."""
    return _WITHHELD[language_of(question)]
