"""Personal data that has a form: links, addresses, numbers with a check digit, accounts.

Where a library knows the form (phonenumbers, python-stdnum) a pattern only proposes and the library
decides; prices, scores and order numbers fail its checks.
"""

import re
from collections.abc import Callable, Iterator

import phonenumbers
from stdnum import iban, luhn
from stdnum.cn import ric
from stdnum.us import ssn

Found = Iterator[tuple[int, int]]

_LINK = re.compile(
    r"(?:https?://|www\.)[!-;=?-~]+|(?<![\w@.-])(?:[a-z0-9-]+\.)+"
    r"(?:com|org|net|edu|gov|io|cn|uk|info|app|dev|tv|co|me|gg|ly)/[!-;=?-~]+",
    re.I | re.A,
)
_EMAIL = re.compile(r"[a-z0-9][\w.+-]*@[a-z0-9-]+(?:\.[a-z0-9-]+)+", re.I | re.A)
_DIGITS = re.compile(r"\d(?:[\s().+-]*\d){6}")  # too few for a telephone number otherwise
_RIC = re.compile(r"(?<![0-9a-zA-Z])\d{17}[\dXx](?![0-9a-zA-Z])")
_SSN = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")
_PASSPORT = re.compile(
    r"(?:passport|护照)\s*(?:number|no\.?|#|号码?)?\s*(?:is|[:\uff1a是])?\s*"
    r"(?P<id>[A-Z]{0,2}(?=[A-Z0-9]*\d)[A-Z0-9]{7,9})(?![A-Z0-9])",
    re.I | re.A,
)
_NINO = re.compile(r"(?<!\w)[A-CEGHJ-PR-TW-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D](?!\w)", re.A)
_CARD = re.compile(r"(?<![\d-])[2-6]\d(?:[ -]?\d){11,17}(?![\d-])")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])", re.A)
_HANDLE = re.compile(
    r"(?<![\w.])@(?P<a>[\w.\u4e00-\u9fff]{2,30})"
    r"|(?:微信号?|(?<![a-z])(?:vx|wx|weixin|wechat|qq)|(?<=加)q)"
    r"(?:群|号|\s|id|[:\uff1a是])*(?P<b>[a-z][\w-]{4,19}|\d{5,12})(?!\d)",
    re.I | re.A,
)
_STREET = (
    r"(?:street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|dr|court|ct|place|pl|terrace|"
    r"way|parkway|pkwy|square|sq|highway|hwy|circle|cir|crescent|close)"
)
_ADDRESS_EN = re.compile(
    rf"(?<![\w$])\d{{1,5}}[A-Za-z]?\s(?:[NSEW]\.?\s)?(?:(?:[A-Z][a-z'.]+|\d{{1,3}}(?:st|nd|rd|th))\s)"
    rf"{{1,3}}(?i:{_STREET})\b\.?(?:,?\s(?i:apt|suite|unit|ste|flat)\.?\s#?\w+)?"
    r"(?:,\s[A-Z][a-z]+(?:\s[A-Z][a-z]+)?)?(?:,\s[A-Z]{2}(?:\s\d{5}(?:-\d{4})?)?)?"
    r"|(?<!\w)P\.?\s?O\.?\sBox\s\d+(?:,\s[A-Z][a-z]+(?:\s[A-Z][a-z]+)?)?"
    r"(?:,\s[A-Z]{2}(?:\s\d{5}(?:-\d{4})?)?)?"
)
_NUMBER_ZH = r"[甲乙]?\d{1,5}(?:[号弄栋幢楼室座单元层巷-]|[A-Z](?=座))+"
_ADDRESS_ZH = re.compile(
    r"(?:[\u4e00-\u9fff]{2,7}?(?:省|自治区|市|区|县|州|镇|乡|园)){0,4}"
    r"[\u4e00-\u9fff]{1,8}(?:路|街|大街|大道|道|巷|弄|胡同|区|村|院)"
    rf"[\u4e00-\u9fff]{{0,6}}?{_NUMBER_ZH}(?:[\u4e00-\u9fff]{{0,10}}?[A-Z]?{_NUMBER_ZH}|[\u4e00-\u9fff]{{2,8}}大厦){{0,3}}"
)
# Verbs and prepositions in front of an address would be taken for the start of its name.
_BEFORE_ZH = re.compile(r"^(?:.{0,6}(?:在|到|寄|来|住|是|去|至))")


def links(text: str) -> Found:
    """Yields where web addresses stand."""
    for match in _LINK.finditer(text):
        yield match.start(), match.start() + len(match[0].rstrip(".,;:!?)"))


def emails(text: str) -> Found:
    """Yields where e-mail addresses stand."""
    for match in _EMAIL.finditer(text):
        yield match.start(), match.start() + len(match[0].rstrip(".-"))


def national_ids(text: str) -> Found:
    """Yields Chinese identity and US social security numbers, UK insurance numbers, passports."""
    for pattern, valid in ((_RIC, ric.is_valid), (_SSN, ssn.is_valid)):
        for match in pattern.finditer(text):
            if valid(match[0]):
                yield match.span()
    yield from (match.span("id") for match in _PASSPORT.finditer(text))
    yield from (match.span() for match in _NINO.finditer(text))


def cards(text: str) -> Found:
    """Yields bank cards, whose last digit checks the others (Luhn), and IBANs."""
    for match in _CARD.finditer(text):
        if luhn.is_valid(re.sub(r"\D", "", match[0])):
            yield match.span()
    for match in _IBAN.finditer(text):
        # Words in capitals may follow; the longest run that checks is the number.
        for end in range(match.end(), match.start() + 14, -1):
            if iban.is_valid(text[match.start() : end].rstrip()):
                yield match.start(), end
                break


def phones(text: str, regions: tuple[str, ...]) -> Found:
    """Yields telephone numbers that exist in a numbering plan.

    Args:
      text: a message.
      regions: countries whose numbers are written without the country's code.
    """
    if not _DIGITS.search(text):
        return
    for region in regions:
        for match in phonenumbers.PhoneNumberMatcher(text, region):
            yield match.start, match.end


def addresses(text: str) -> Found:
    """Yields postal addresses: a street with a number, and what surrounds it."""
    yield from (match.span() for match in _ADDRESS_EN.finditer(text))
    for match in _ADDRESS_ZH.finditer(text):
        before = _BEFORE_ZH.match(match[0])
        yield match.start() + (before.end() if before else 0), match.end()


def handles(text: str) -> Found:
    """Yields names of accounts: @name, and WeChat and QQ numbers that are called so."""
    for match in _HANDLE.finditer(text):
        yield match.span() if match["a"] else match.span("b")


FINDERS: dict[str, Callable[[str], Found]] = {
    "link": links,
    "email": emails,
    "id": national_ids,
    "card": cards,
}
