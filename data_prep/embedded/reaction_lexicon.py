"""The lexicon of chat reactions: which phrases ("hahaha", "oh no", "thanks so much") mean what.

A reaction is what a sticker replaces. The lexicon is precise before it is complete: a message is a
reaction only if *every* word of it belongs to a listed phrase or to a small set of fillers, and if
the phrases agree on one intention. What it cannot decide it leaves alone (returns None).
Definitions with examples for each intention, and the precision measured by reading samples, are in
docs/data.md.
"""

import re
from dataclasses import dataclass

_NAMES = """admiration amusement anger annoyance approval caring confusion curiosity desire
    disappointment disapproval disgust embarrassment excitement fear gratitude grief joy love
    nervousness optimism pride realization relief remorse sadness surprise neutral"""
# The 27 categories of GoEmotions in alphabetical order, and neutral.
GOEMOTIONS: tuple[str, ...] = tuple(_NAMES.split())
# The mark of phrases that are no reaction by themselves.
UNDECIDED = "undecided"

# How much a phrase says by itself. "haha thanks" is gratitude and "wow, so sad" is sadness: only
# the strongest phrases of a message decide, and they must agree.
SAID, EXCLAIMED, LAUGHED, SMILED, NODDED = 4, 3, 2, 1, 0

_VERY = (
    r"(?:(?:so|very|really|pretty|super|way|too|quite|just|truly|actually|totally|freaking|kinda|"
    r"extremely|absolutely|definitely|always|also|such|a|an|the|still|rather|seriously|real|dang|"
    r"insanely|crazy|honestly|legit) )*"
)
_THAT = (
    r"(?:(?:thats|that is|that was|sounds|that sounds|it sounds|that must be|that must have been|"
    r"that had to be|that has to be|thats got to be|youre|you are|how|i think thats|"
    r"i think that is|thats like|that seems|that looks) (?:like )?)?"
)
_AFTER = (
    r"(?: (?:man|dude|bro|though|tho|haha|too|of you|to hear|to me|story|stuff|then|actually))*"
)


@dataclass(frozen=True)
class Rule:
    """A phrase family of the lexicon.

    Attributes:
      intention: a name out of GOEMOTIONS, or UNDECIDED.
      strength: one of SAID, EXCLAIMED, LAUGHED, SMILED, NODDED.
      pattern: regular expression over normalised words joined by single spaces.
      answer: True where the same words may merely answer a question ("great", "awesome").
    """

    intention: str
    strength: int
    pattern: str
    answer: bool = False


def _joined(words: str) -> str:
    """Joins the lines of a pattern; a line may break after any "|" or between brackets."""
    return "".join(line.strip() for line in words.split("\n"))


def _is(intention: str, words: str) -> Rule:
    """A judgement such as "(that's so) WORDS", which may also be an answer."""
    pattern = f"{_THAT}{_VERY}(?:{_joined(words)}){_AFTER}"
    return Rule(intention, SAID, pattern, answer=True)


def _says(intention: str, words: str, strength: int = SAID) -> Rule:
    return Rule(intention, strength, f"(?:{_joined(words)})")


RULES: tuple[Rule, ...] = (
    _is(
        "admiration",
        r"""
        cool|awesome|amazing|incredible|fantastic|impressive|neat|rad|epic|wonderful|brilliant|
        beautiful|dope|sick|legit|legendary|great|excellent|nice|sweet|genius|inspiring|fabulous|
        ambitious|talented|smart|clever|creative|perfect|phenomenal|classic|cool beans|(?:good|
        great|nice|awesome|amazing) (?:job|work|choice|play|goal|taste|story|accomplishment)""",
    ),
    _says(
        "admiration",
        r"""
        well done|nice one|congrats|congratulations|good for you|props(?: to you)?|kudos|respect|
        bravo|way to go|im (?:so |very )?impressed|you rock|good on you|you go girl|(?:i am |
        im )?(?:so )?proud of you""",
    ),
    _says("amusement", "haha|lol|<tongue>", LAUGHED),
    _says("amusement", "<wink>", SMILED),
    _is("amusement", "funny|hilarious|comical|gold|comedy"),
    _says(
        "amusement",
        r"""
        you crack me up|(?:that|this) (?:made me laugh|cracks me up)|im (?:dying|dead|
        laughing)(?: so hard)?|laugh out loud|good one|(?:im )?just kidding|jk|
        (?:im )?(?:only )?joking""",
    ),
    _says(
        "anger",
        r"""
        (?:im )?so (?:mad|angry|furious)|im (?:mad|angry|furious|livid)|
        that makes me (?:so )?(?:mad|angry)|how dare (?:you|they|he|she)""",
    ),
    _is(
        "annoyance",
        "annoying|frustrating|ridiculous|irritating|obnoxious|the worst|stupid|rude|dumb",
    ),
    _says(
        "annoyance",
        r"""
        ugh|argh|grr|smh|i hate (?:that|it|this)(?: so much)?|i hate (?:it )?when that happens|
        give me a break|come on|stop it""",
    ),
    _is(
        "approval",
        r"""
        true|right|fair|valid|accurate|correct|understandable|relatable|fair enough|spot on|
        (?:good|great|valid|fair|excellent) (?:point|idea|call|thinking|advice|plan|attitude|
        philosophy)|the best""",
    ),
    _says(
        "approval",
        r"""
        exactly|precisely|agreed|agree|i (?:\w+ly |would (?:have to )?|do |
        have to )*agree(?: with (?:you|that|you there))?(?: completely| on that| totally)*|
        true (?:that|dat|true)|(?:yeah |yes |oh )*(?:for sure|totally|absolutely|definitely|
        indeed|certainly)|same(?: here)?|me (?:too|neither|either)|i feel (?:you|ya|that|
        the same(?: way)?)|amen(?: to that)?|preach|facts|touche|i know right(?: \?)?|ikr|
        right right|of course(?: of course)?|i believe (?:it|that|you)|i (?:completely |totally |
        can )?understand(?: that| you)?|(?:yeah |yes |ya |oh )+(?:seriously|for real)|no kidding|
        i bet|i think so too|i hear (?:you|ya|that)|sounds (?:good|like a plan|great)(?: to me)?|
        works for me|that works(?: for me)?|heck yeah|heck yes|(?:you are|youre) (?:so |totally |
        absolutely |probably |definitely )*right|i like (?:that|it)(?: idea)?|
        i feel (?:like )?that|could(?: not|nt) agree more|i couldnt agree more|truth|well said|
        you know it""",
    ),
    _says(
        "caring",
        r"""
        (?:im |i am )?(?:so |very |really )*sorry (?:to hear|for your loss|for you|you had to|
        you have to|youre|
        that happened)(?: that| it| about that| go through that| deal with that| deal with it)?|
        (?:i )?hope (?:you|he|she|they|it) (?:feel|feels|get|gets|is|are) better(?: soon)?|
        get well(?: soon)?|(?:i )?hope (?:youre|you are|everything is|everythings|hes|shes|
        theyre) (?:ok|okay|alright|all right|doing ok|doing okay)|(?:is everything|are you|
        you) (?:ok|okay|alright) \?|take care|no worries(?: at all)?|dont worry(?: about (?:it|
        that))?|its (?:ok|okay|all good)|(?:youre|you are) (?:all )?(?:fine|okay|good|ok)|
        all good|no biggie|poor (?:you|thing|guy|girl|kid|baby|dog|kitty)|hang in there|
        stay (?:safe|strong)|im here for you|hugs|bless (?:you|your heart|him|her)""",
    ),
    _says("caring", "aw|awe", EXCLAIMED),
    _is("confusion", "confusing|weird|odd|strange|random|bizarre"),
    _says(
        "confusion",
        r"""
        what [?]|wait what(?: \?)?|huh \?|(?:wait )?what do you mean(?: by that)?(?: \?)?|
        im (?:so |a bit |a little |very )?(?:confused|lost)|i (?:dont|do not) (?:get it|
        understand|follow|get that)(?: \?)?|idk|(?:i )?(?:really |honestly )*(?:dont|
        do not) (?:really |even )?know(?: actually| yet)?|dunno|i dunno|(?:i have |
        ive )?no (?:idea|clue)|(?:im |i am )?(?:really )?not (?:really |too |
        entirely )?sure(?: yet)?|who knows(?: \?)?|come again(?: \?)?|thats confusing""",
    ),
    _says("confusion", "hmm", EXCLAIMED),
    _is("curiosity", "interesting|fascinating|intriguing|curious"),
    _says(
        "curiosity",
        r"""
        tell me more|do tell|(?:please )?go on|how so(?: \?)?|why(?: is| was)? that(?: \?)?|
        why \?|how come(?: \?)?|thats why \?|how does that work \?|i wonder(?: why)?|im (?:so |
        very )?(?:curious|intrigued)|(?:oh|yeah|oh yeah|ya) \?|like what \?|like how \?|
        what happened(?: \?)?|what makes you say that(?: \?)?|and(?: then)? \?|how \?|
        what else(?: \?)?|whys that(?: \?)?""",
    ),
    _is("desire", "jealous|lucky|delicious|tasty|yummy|yum"),
    _says(
        "desire",
        r"""
        (?:i )?wish(?: i (?:could|did|had (?:that|one)|was|were))?|i (?:really )?want (?:one|it|
        that|some|to|to go|to try it|to see it|to see that)(?: so bad| too| so badly| now)*|
        im (?:so )?(?:jealous|envious)(?: of you)?|(?:lucky|luckyy) (?:you|duck|ducky)|
        (?:you are |youre )?so lucky|must be nice|i need (?:that|one|it)(?: in my life)?|(?:id|
        i would) (?:really )?love (?:to|that|it)(?: too| so much)?|(?:now )?im (?:so )?(?:hungry|
        drooling)(?: now)?|(?:id|i would) like (?:that|to)""",
    ),
    _is(
        "disappointment",
        r"""
        sucks|stinks|lame|unfortunate|bummer|(?:what )?a shame|too bad|disappointing|pity|not fun|
        no fun|total bummer|bad""",
    ),
    _says(
        "disappointment",
        r"""
        (?:that|it|this) (?:really |kinda |totally |must |would |kind of )*(?:sucks|suck|stinks|
        stink|bites)|shoot|darn(?: it)?|dang it|dangit|shucks|(?:aw|aww) man|oh well|boo|rats|
        bummer|unfortunately|too bad|crap|drat""",
    ),
    Rule(
        "disapproval",
        SAID,
        "i (?:dont|do not) (?:really )?think so|(?:definitely|absolutely|of course) not",
        answer=True,
    ),
    _says(
        "disapproval",
        r"""
        (?:thats |that is |its )?(?:not true|false|a lie|thats wrong|not cool|not good|not okay|
        not fair|a bad idea|not right|unfair)|lies|i (?:totally |respectfully |have to )?disagree|
        i (?:dont|do not) (?:really )?(?:agree(?: with that)?|like (?:that|it))|
        no thanks|hard pass|dont do (?:it|that)|
        how could you""",
    ),
    _is("disgust", "gross|nasty|disgusting|icky|sickening"),
    _says("disgust", "ew|yuck|barf|ick|blech|bleh|yucky"),
    _is("embarrassment", "embarrassing|awkward|cringe|cringey|cringy"),
    _says(
        "embarrassment",
        "aw shucks|oops|oopsie|oopsies|whoops|woops|im (?:so )?embarrassed|guilty|facepalm",
    ),
    _is("excitement", "fun|exciting|blast|thrilling|dream|good time|great time|cant wait"),
    _says(
        "excitement",
        r"""
        (?:that|it|this) (?:would|will|could|should) (?:\w+ly |so )?be (?:so |really |super |
        pretty |way |very |a lot of )*(?:awesome|cool|fun|amazing|great|nice|sweet|incredible|
        the best|dope|sick|neat|rad)""",
    ),
    _says(
        "excitement",
        r"""
        woohoo|woo hoo|woot|woo|wahoo|yahoo|lets go|lets do (?:it|this)|im (?:so |very |really |
        super )*(?:excited|stoked|pumped|hyped)(?: for (?:you|it|that))?|so (?:excited|stoked)|
        i cant wait|cant wait|hell yeah|yes yes yes|yesss|yas|yass|boom|how exciting|yeet|booyah""",
    ),
    _is("fear", "scary|terrifying|creepy|spooky|frightening|horrifying"),
    _says("fear", "yikes|im (?:so )?(?:scared|terrified)|eek|uh oh|(?:that )?scares me|ah no"),
    _says(
        "gratitude",
        r"""
        (?:thanks|thank you|thank u|thx|ty|tysm)(?: (?:so much|so so much|very much|a lot|a bunch|
        a ton|man|dude|though|again|too|anyway|friend|you|for (?:that|the \w+(?: \w+)?|asking|
        sharing|chatting|talking|everything|your \w+|listening|understanding|noticing)))*""",
    ),
    _says(
        "gratitude",
        r"""
        (?:i )?(?:really )?appreciate (?:it|that|you)|much appreciated|(?:thats |that is )?(?:so |
        very |really )*(?:kind|nice|sweet) of you(?: to say)?|(?:youre|you are) (?:so |too |
        very )*(?:kind|sweet)|thats (?:so |very |really )*kind""",
    ),
    _says(
        "joy",
        r"""
        yay|hooray|hurray|(?:well )?(?:i am |im )?(?:so |very |really )*(?:glad|
        happy)(?: for you| to hear(?: that| it)?| to help)?|(?:thats |that is |its )?(?:so |
        really |always )*(?:good|great|wonderful|awesome|nice) to hear(?: that)?|oh good|(?:that|
        you) (?:made|makes) (?:my day|me (?:so )?happy|me smile)|
        (?:oh |well )?(?:thats|that is) (?:so |really |very )?good|
        best day ever|happy birthday|
        happy (?:friday|holidays|new year)""",
    ),
    _says("joy", "<smile>|<grin>", SMILED),
    _is("love", "cute|adorable|precious|lovely|romantic|cutest thing ever"),
    _says(
        "love",
        r"""
        i (?:really |just |absolutely |totally |freaking |do |also )*(?:love|adore|loved) (?:it|
        that|this|them|him|her|you|those|(?:that|this) (?:movie|show|song|book|one|game|band|
        place|series|idea|quote|guy))(?: so much| too| as well| haha| so so much)*|love (?:it|
        that|you|them|this)(?: too| so much)*|me too i love (?:it|that)|(?:thats |that is )(?:so |
        really |very |super )+(?:sweet|thoughtful)|how sweet|(?:thats |its |
        that is )?my favorite(?: too| one)?""",
    ),
    _says("love", "<heart>", EXCLAIMED),
    _is("nervousness", "stressful|nerve wracking|nerve racking|overwhelming"),
    _says("nervousness", "im (?:so |a little |a bit |kinda )?(?:nervous|worried|stressed|anxious)"),
    _says(
        "optimism",
        r"""
        good luck(?: with (?:that|it|everything|your \w+|all that|school|finals|
        the \w+))?(?: to you)?|best of luck|fingers crossed|i (?:sure |really )?hope so(?: too)?|
        hopefully(?: so)?|lets hope(?: so)?|you (?:can|could) do it|you got this|youll (?:do|
        be) (?:great|fine|awesome|good|ok|okay)|(?:itll|it will) (?:all )?be (?:ok|okay|fine|
        great|good|worth it)|it gets better|things will get better|some ?day|one day|
        im sure (?:you will|youll do (?:great|fine)|itll be fine)|i believe in you|heres hoping|
        keep it up|never give up|go for it|you should(?: totally| definitely)* (?:do it|go for it|
        try it)|its never too late|dont give up""",
    ),
    _says("pride", "im (?:so )?proud(?: of (?:myself|it|that))?|i did it|nailed it|i win|i won"),
    _says("realization", "oh|ah|ohh", NODDED),
    _says(
        "realization",
        r"""
        (?:oh|ah) (?:ok|okay|right|gotcha|alright|i see|k)|(?:oh |ah )?i see(?: i see)?|gotcha|
        got it|(?:that |it |this )?(?:\w+ly )?(?:makes|would make|does make|made) (?:a lot of |
        more |total |perfect |so much |complete )?sense(?: now| too)?|good to know|i (?:didnt|
        did not|never) (?:even )?(?:know|realize|realized|knew|think of|thought of|think about|
        thought about) (?:that|it)(?: before| way)?|now i (?:get it|understand|know|see)|i (?:get|
        got) (?:it|that|you|what you mean|what youre saying)|i (?:can )?see (?:that|what you mean|
        your point)|i (?:totally |completely )?forgot(?: about (?:that|it))?|duh|
        that explains (?:it|a lot|everything)|aha|(?:oh )?(?:thats|that is) right|
        the more you know|you learn something new(?: every ?day)?|oh wait""",
    ),
    _says(
        "relief",
        r"""
        phew|whew|thank (?:goodness|god|heavens|heaven|the lord)|(?:what a|thats a|
        that is a) relief|im (?:so )?relieved|finally|at last""",
    ),
    _says(
        "remorse",
        r"""
        (?:i am |im )?(?:so |really |very )*sorry(?: (?:man|dude|again|
        (?:about|for) (?:that|the \w+|
        the \w+ \w+)))*|my (?:bad|apologies|mistake|fault)|
        (?:i )?apologi[sz]e|apologies|forgive me|
        i feel (?:so )?(?:bad|terrible|guilty)|pardon me""",
    ),
    _is(
        "sadness",
        r"""
        sad|terrible|awful|horrible|rough|tough|heartbreaking|tragic|depressing|brutal|harsh|
        devastating|painful|miserable|sad day""",
    ),
    _says(
        "sadness",
        r"""
        rip|that makes me (?:so |really )?sad|i(?:m| am) (?:so )?sad|im crying|that hurts|sigh|
        sad (?:day|times|face)|i miss (?:it|that|them|him|her)(?: so much)?|alas|<dismay>""",
    ),
    _says("sadness", "oh no(?: no)*|oof|ouch|<frown>|oh dear|nooo", EXCLAIMED),
    _is(
        "surprise",
        r"""
        crazy|insane|wild|nuts|unbelievable|mind blowing|mindblowing|unreal|shocking|surprising|
        bonkers|intense|impossible|quite the \w+""",
    ),
    _says(
        "surprise",
        r"""
        (?:oh |wait |like |yeah )*really \?|oh really|(?:like |wait |oh )*(?:for real|seriously|
        no way) \?|are you (?:serious|kidding|for real|joking)(?: me)?(?: \?)?|(?:youre|
        you are) (?:kidding|joking)(?: me)?(?: \?)?|i (?:cant|cannot) believe (?:it|that|you)|
        shut up|no freaking way|mind blown|im (?:so )?(?:shocked|surprised|speechless)|
        didnt expect that|plot twist|say what \?|i had no idea""",
    ),
    _says(
        "surprise",
        r"""
        what [?]!|oh no way|wow|whoa|woah|omg|omgosh|(?:oh )?my (?:gosh|goodness|word|god|
        gracious|heck|heavens|stars)|oh my|holy (?:cow|crap|moly|smokes|toledo|heck|guacamole|
        mackerel)|what the (?:heck|hell|crap)(?: \?)?|no way|whaaat(?: \?)?|jeez|geez|sheesh|
        oh goodness|oh gosh|goodness(?: gracious)?|good(?:ness)? (?:grief|heavens)|<gasp>|oh snap|
        gee|oh boy""",
        EXCLAIMED,
    ),
    _says(
        "neutral",
        r"""
        (?:hello|hi|hey|heya|hola|howdy|greetings|
        heyo)(?: there| again| hey| hello| friend| man)*|good (?:morning|afternoon|evening)|
        (?:good)?bye(?: bye| now)?|see (?:ya|you|u)(?: later| around| soon| tomorrow| then)*|ttyl|
        talk to (?:you|ya) (?:later|soon)|good ?night|later|laters|adios|peace out|have a (?:good|
        great|nice|wonderful|lovely|fantastic) (?:day|night|one|evening|weekend|afternoon|
        rest of your (?:day|night))(?: too)?|(?:it was |its been )?(?:so |really )?(?:nice|good|
        great|fun) (?:talking|chatting)(?: to| with)?(?: you| ya)?(?: too)?|
        nice to meet you(?: too)?|farewell|cya|(?:youre|you are) (?:very |so )?welcome|np|
        no problem|you too|you as well|same to you|likewise|will do|my pleasure|any ?time|
        welcome back|
        (?:thats|that is) (?:ok|okay|alright|all right|fine)""",
    ),
    # Heard with opposite feelings: no reaction unless something stronger stands beside it.
    _says(
        UNDECIDED,
        "oh man|ah man|man oh man|oh (?:yeah|yes|sure)|dang|ooh|ahhh",
        NODDED,
    ),
    # The opening of a sentence, or words that only look like a reaction.
    _says(
        UNDECIDED,
        "(?:ok|okay|oh|alright|right|yeah|yes|yep|ya) (?:so|and|but)|(?:sure|ok|okay|yes) shoot",
    ),
    _says("neutral", "ok|okay|k|kk|alright|alrighty|sure|mhm|uh huh|okie(?: dokie)?|okey", NODDED),
)

FILLERS = re.compile(
    r"(?:yeah|yes|yep|yup|yea|ya|yeh|man|dude|bro|well|girl|buddy|friend|so|oh|ah|like|"
    r"i mean|honestly|literally|seriously|wait|though|tho|just|then|now|too|again|actually|huh|"
    r"dang|gosh|indeed|lets see|i guess|i think|i know|my friend|for you|ooh|right|"
    r"<doubt>)(?= |$)"
)
