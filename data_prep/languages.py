"""Languages: by ISO 639 code, which marks end a sentence and which words before a stop do not.

The codes are those of the hundred largest Wikipedias and a few more. Abbreviations are those that a
newspaper or an encyclopaedia uses; a language without a list has initials alone.
"""

from dataclasses import dataclass, field
from typing import Literal

Words = frozenset[str]


def _words(text: str) -> Words:
    return frozenset(text.split())


# Of all scripts with spaces, because text quotes other languages: Latin, Devanagari, Arabic, Urdu,
# Armenian, Ethiopic, Burmese, Khmer, Canadian syllabics.
_STOPS = ".!?…।॥؟۔։።፧፨။។៕᙮"


@dataclass(frozen=True, kw_only=True)
class LanguageRules:
    """What ends a sentence in a language.

    Attributes:
        kind: `spaced` ends at a stop and a space, `unspaced` at a stop, `length` at a space after
            about a hundred characters, for scripts without stops.
        stops: marks that end a sentence.
        before_names: words, in lower case, whose full stop never ends one: titles and the like.
        before_numbers: words whose full stop ends none before a number.
        undecided: abbreviations whose full stop ends one only before a word of `first_words`.
        first_words: words that begin a sentence, as they are written there.
        ordinals: whether a number and a full stop are an ordinal, as in "12. Minute".
    """

    kind: Literal["spaced", "unspaced", "length"] = "spaced"
    stops: str = _STOPS
    before_names: Words = frozenset()
    before_numbers: Words = frozenset()
    undecided: Words = frozenset()
    first_words: Words = field(default_factory=frozenset)
    ordinals: bool = False


_PLAIN = LanguageRules()
_ORDINALS = LanguageRules(ordinals=True)
_CYRILLIC = LanguageRules(
    undecided=_words(
        "г гг др т.д т.п т.е см стр тыс млн млрд руб грн проф акад ул вул пл просп буд кв ім им св "
        "обл рис тел дж"
    )
)
# Latin initials as Devanagari spells them, "ए. पी. जे. अब्दुल कलाम", and titles.
_DEVANAGARI = LanguageRules(
    before_names=_words("डॉ डा प्रो प्रा पं श्री श्रीमती सुश्री कु स्व मो मु सं इंजी एड ले के"),
    before_numbers=_words("नं रु पृ क्र"),
    undecided=_words(
        "ए बी सी डी ई एफ जी एच आई जे एल एम एन ओ पी क्यू आर एस टी यू वी डब्ल्यू एक्स वाई जेड "
        "कि मी कि.मी से.मी पू ई.पू वि रु बी.ए एम.ए"
    ),
    first_words=_words(
        "वह यह वे ये इस उस इन उन इसके उसके इसमें उसमें उनके मैं हम तुम आप और लेकिन परंतु मगर जब तब "
        "अगर यदि अब फिर कुछ कई सभी क्या"
    ),
)
_BENGALI = LanguageRules(
    before_names=_words("ড ডা ডাঃ মো মোঃ মোসা মি প্রফেসর ইঞ্জি অ্যাড"),
    undecided=_words(
        "এ বি সি ডি ই এফ জি এইচ আই জে কে এল এম এন ও পি আর এস টি ইউ ভি ডব্লিউ কি মি কি.মি খ্রি"
    ),
)
_INDIC = LanguageRules(
    before_names=_words("ડૉ ડો ડા શ્રી ਡਾ ਸ ਸ਼੍ਰੀ டாக்டர் திரு திருமதி డా శ్రీ ಡಾ ಶ್ರೀ ഡോ ശ്രീ ଡା ශ්‍රී")
)

_ENGLISH = LanguageRules(
    before_names=_words(
        "mr mrs ms messrs mme mlle dr prof rev fr hon st ste mt gen col maj capt cpt lt sgt cpl "
        "pvt adm cmdr cdr ens gov sen rep pres supt insp det asst assoc atty msgr cf ca approx vs "
        "v viz e.g i.e al"
    ),
    before_numbers=_words(
        "no nos nr vol vols fig figs eq sec ch art p pp c jan feb mar apr jun jul aug sep sept "
        "oct nov dec"
    ),
    undecided=_words(
        "jr sr inc ltd co corp bros etc esq a.m p.m u.s u.k u.n d.c ph.d b.a m.a m.d b.c a.d ft "
        "ave blvd rd dept univ"
    ),
    first_words=_words(
        "The He She It They We You This That These Those There In On At After Before But And When "
        "While As If His Her Their Its Our My However Although Since During For From By With Some "
        "Many Most One Two What Who Why How"
    ),
)
_GERMAN = LanguageRules(
    before_names=_words(
        "dr prof hr hrn fr frl dipl ing st bzw ca vgl sog geb gest inkl zzgl ggf evtl z.b d.h u.a "
        "u.u i.d.r v.a s.o s.u z.t o.ä insb insbes mag jun sen vs dt engl frz ital russ lat griech "
        "österr röm ev kath hl th joh seb chr friedr wilh lt gem gebr"
    ),
    before_numbers=_words("nr nrn bd bde s abb abs art kap ziff aufl jg hs op max min mind tel"),
    undecided=_words(
        "mio mrd tsd std min sek etc usw jh jhd jhdt jahrh chr str hbf tel hrsg co gmbh n.chr "
        "v.chr a.d jan feb apr jun jul aug sep sept okt nov dez"
    ),
    first_words=_words(
        "Der Die Das Ein Eine Einen Einem Einer Er Sie Es Wir Ich Ihr Ihre Sein Seine Dies Diese "
        "Dieser Dieses In Im Am An Auf Aus Bei Beim Mit Nach Von Vom Vor Zu Zum Zur Für Durch "
        "Über Unter Um Ohne Gegen Seit Während Wegen Als Wenn Weil Da Dass Daher Dabei Danach "
        "Damit Dann Doch Aber Auch Und Oder Nur Noch So Hier Dort Heute Gestern Man Alle Viele "
        "Mehr Was Wer Wie Wo Warum"
    ),
    ordinals=True,
)
_FRENCH = LanguageRules(
    before_names=_words(
        "m mm mme mmes mlle dr pr st ste mgr me cf c.-à-d p.ex env av gén ch ph th boul bd"
    ),
    before_numbers=_words(
        "n no nº art fig p pp vol chap t tél janv févr avr juil sept oct nov déc"
    ),
    undecided=_words("etc apr j.-c col lt éd éds sté cie"),
    first_words=_words(
        "Le La Les Un Une Des Il Elle Ils Elles On Ce Cette Ces Cet En Dans À Au Aux Pour Par "
        "Avec Sans Sous Sur Après Avant Mais Et Ou Où Lorsque Quand Si Son Sa Ses Leur Leurs "
        "Nous Vous Je Depuis Selon Plusieurs"
    ),
)
_SPANISH = LanguageRules(
    before_names=_words(
        "sr sra srta sres dr dra d dña prof lic ing gral st sta p.ej aprox av avda ntra excmo "
        "excma ilmo mons"
    ),
    before_numbers=_words("núm n no nº art fig pág págs p pp vol cap t"),
    undecided=_words("etc ud uds ee uu ee.uu jj oo rr hh ff aa cc s.a cía d.c a.c c"),
    first_words=_words(
        "El La Los Las Un Una Unos Unas Él Ella Ellos Ellas En De Al Del Por Para Con Sin Sobre "
        "Tras Desde Hasta Pero Y O Si Cuando Su Sus Se Esta Este Esto Estos Estas Lo No Durante"
    ),
)
_ITALIAN = LanguageRules(
    before_names=_words("sig sigg sig.ra dott dott.ssa prof ing avv on s ss st ca cfr es"),
    before_numbers=_words("n nr art fig p pag pp vol cap"),
    undecided=_words("ecc d.c a.c s.p.a c"),
    first_words=_words(
        "Il Lo La I Gli Le Un Uno Una L In Nel Nella Nei Nelle A Al Alla Da Dal Dalla Di Del "
        "Della Per Con Su Sul Sulla Tra Fra Ma E O Se Quando Questo Questa Questi Queste Suo Sua "
        "Egli Ella Essi Si Non Dopo Durante"
    ),
)
_PORTUGUESE = LanguageRules(
    before_names=_words("sr sra srs dr dra d prof profa eng gen st sto sta p.ex aprox av"),
    before_numbers=_words("n nº núm art fig pág págs p pp vol cap"),
    undecided=_words("etc d.c a.c s.a c"),
    first_words=_words(
        "O A Os As Um Uma Uns Umas Ele Ela Eles Elas Em No Na Nos Nas De Do Da Dos Das Por Pelo "
        "Pela Para Com Sem Sobre Após Desde Até Mas E Ou Se Quando Seu Sua Seus Suas Este Esta "
        "Esse Essa Isso Não Durante"
    ),
)
_DUTCH = LanguageRules(
    before_names=_words("dhr mevr mw dr drs ir ing mr prof st bv bijv d.w.z o.a m.n ca vgl resp"),
    before_numbers=_words("nr nrs art fig blz p pp vol hfst jan feb mrt apr jun jul aug sep okt"),
    undecided=_words("enz etc e.d e.a mln mld n.chr v.chr"),
    first_words=_words(
        "De Het Een Hij Zij Ze Wij We Ik Je Dit Dat Deze Die In Op Aan Bij Met Na Van Voor Door "
        "Over Onder Om Uit Sinds Tijdens Maar En Of Als Toen Omdat Ook Er Zijn Haar Hun Veel"
    ),
)
_POLISH = LanguageRules(
    before_names=_words("dr prof mgr inż hab ks gen płk św im ul al tzw tzn np m.in ok por itp"),
    before_numbers=_words("nr art dn rys s str t tab ust poz"),
    undecided=_words("r w wieku n.e p.n.e itd tys mln mld godz proc"),
    first_words=_words(
        "W Na Do Z Po Od Za O U Przez Przed Dla Nad Pod Ale I A Oraz Jest Był Była Było Są To Ten "
        "Ta Te Jego Jej Ich On Ona Oni Gdy Kiedy Jeśli Nie Się"
    ),
    ordinals=True,
)
_CZECH = LanguageRules(
    before_names=_words("dr prof ing mgr mudr judr phdr sv tzv tj např mj resp popř cca p pí"),
    before_numbers=_words("č čl obr s str sv tab odst"),
    undecided=_words("atd apod aj n.l př.n.l tis mil mld hod r"),
    first_words=_words(
        "V Ve Na Do Z Ze Po Od Za O U Při Před Pro Nad Pod Ale A I Je Byl Byla Bylo Byli Jsou To "
        "Ten Ta Ty Jeho Její Jejich On Ona Oni Když Pokud Ne Podle"
    ),
    ordinals=True,
)
_HUNGARIAN = LanguageRules(
    before_names=_words("dr prof ifj id özv szt st pl ill kb ún vö"),
    before_numbers=_words("sz o old ábra köt"),
    undecided=_words("stb i.sz i.e kr.u kr.e db"),
    first_words=_words(
        "A Az Egy Ez Ezek Azt Ezt Ő Ők És De Ha Mert Mint Majd Már Még Nem Is Itt Ott Amikor"
    ),
    ordinals=True,
)
_ROMANIAN = LanguageRules(
    before_names=_words("dl dna d-na dr prof ing sf st ex cca cf"),
    before_numbers=_words("nr art fig p pag vol cap"),
    undecided=_words("etc d.hr î.hr ș.a s.a"),
    first_words=_words(
        "În La De Din Pe Cu Pentru Prin După Dar Și Sau Dacă Când El Ea Ei Ele Acest Această "
        "Aceste Acești Un O Este A Au Nu Se"
    ),
)
_TURKISH = LanguageRules(
    before_names=_words("dr prof doç yrd av müh sn hz st bkz örn vb vs"),
    before_numbers=_words("no s sf cilt"),
    undecided=_words("m.ö m.s a.ş ltd şti yy"),
    first_words=_words("Bu O Bir Ve Ama Ancak Ayrıca Daha Her Çok İlk Ben Biz Siz Onlar Şu Ne"),
    ordinals=True,
)
_NORDIC = LanguageRules(
    before_names=_words("dr prof hr fru st bl.a f.eks t.ex dvs ca jf jfr ev evt"),
    before_numbers=_words("nr s fig kap bd art"),
    undecided=_words("osv m.m m.fl o.s.v mio mia mill kr e.kr f.kr"),
    first_words=_words(
        "Den Det De Han Hun Hon Jeg Jag Vi Du I På Av Af Med Til Till För For Fra Från Men Og Och "
        "Når När Hvis Om Efter Etter Under En Et Ett Dette Denne Disse Der Som"
    ),
    ordinals=True,
)
_FINNISH = LanguageRules(
    before_names=_words("tri prof esim ns mm ym ks vrt n"),
    before_numbers=_words("nro s sv kuva luku"),
    undecided=_words("jne eaa jaa ekr jkr klo"),
    first_words=_words(
        "Hän Se Ne He Me Minä Tämä Nämä Ja Mutta Kun Jos Myös Vuonna Sen Hänen On Oli Ei"
    ),
    ordinals=True,
)
_RUSSIAN = LanguageRules(
    before_names=_words(
        "гор ул пл просп пер наб бул мкр пос дер им проф акад доц преп д-р св оз стр рис ср "
        "напр т.е т.н т.к в.т.ч англ нем фр лат греч итал исп порт польск укр тюрк "
        "санскр род ум ок ст дж"
    ),
    before_numbers=_words(
        "№ п пп гл разд табл ч т вып кв корп тел янв фев февр апр июн июл авг сен сент окт ноя дек"
    ),
    undecided=_words(
        "гг вв н.э т.д т.п др пр гр млн млрд тыс руб коп кг км см мм чел час мин сек кв обл ал вл "
        "дм евг ник мих алекс конст ген полк лейт зам ред изд тов"
    ),
    first_words=_words(
        "В Во На Он Она Оно Они Это Эта Этот Эти И А Но С Со По Из За К Ко У О Об От До Для При "
        "После Когда Если Так Также Его Её Их Мы Я Вы Не Был Была Было Были Как"
    ),
)
_GREEK = LanguageRules(
    stops=_STOPS.replace("?", "") + ";\u037e",
    before_names=_words("κ κα κος δρ καθ αγ π.χ βλ πρβλ λ.χ"),
    before_numbers=_words("αρ σ σελ τ τόμ εικ"),
    undecided=_words("κ.λπ κλπ κ.ά μ.χ π.μ μ.μ δισ εκ"),
    first_words=_words("Ο Η Το Οι Τα Τον Την Στο Στη Στην Στις Στα Με Για Από Και Αλλά Όταν Αν Σε"),
)
_ARMENIAN = LanguageRules(stops=_STOPS + ":")
_UNSPACED = LanguageRules(kind="unspaced", stops="。！？；…｡")
_BY_LENGTH = LanguageRules(kind="length", stops="")

LANGUAGES: dict[str, LanguageRules] = {
    **dict.fromkeys(
        "ceb vi war ca id ms eo eu sh uz cy min gl az lmo ast oc br ku vo la sq af tl jv su io ht "
        "mg pms an sco ga gd fy lb so sw yo rw ha ig zu xh nds als bar nap scn vec pnb mi sn "
        "ilo bcl bjn ace mt tk qu gn".split(),
        _PLAIN,
    ),
    **dict.fromkeys("sk hr sl bs lv lt et sr-latn is fo dsb hsb".split(), _ORDINALS),
    **dict.fromkeys("uk be bg mk sr kk tt ce ba cv ky tg mn os sah mhr".split(), _CYRILLIC),
    **dict.fromkeys("ar arz fa ur ckb azb ps sd ug he yi".split(), _PLAIN),
    **dict.fromkeys("hi mr ne sa new mai bh".split(), _DEVANAGARI),
    **dict.fromkeys("bn as bpy".split(), _BENGALI),
    **dict.fromkeys("or pa gu ta te kn ml si".split(), _INDIC),
    **dict.fromkeys("ko ka".split(), _PLAIN),
    **dict.fromkeys("am ti".split(), _PLAIN),
    **dict.fromkeys("zh ja yue zh-yue wuu gan zh-classical".split(), _UNSPACED),
    **dict.fromkeys("th lo".split(), _BY_LENGTH),
    **dict.fromkeys("sv da no nb nn".split(), _NORDIC),
    "en": _ENGLISH,
    "simple": _ENGLISH,
    "de": _GERMAN,
    "fr": _FRENCH,
    "es": _SPANISH,
    "it": _ITALIAN,
    "pt": _PORTUGUESE,
    "nl": _DUTCH,
    "pl": _POLISH,
    "cs": _CZECH,
    "hu": _HUNGARIAN,
    "ro": _ROMANIAN,
    "tr": _TURKISH,
    "fi": _FINNISH,
    "ru": _RUSSIAN,
    "el": _GREEK,
    "hy": _ARMENIAN,
    "my": _PLAIN,
    "km": _PLAIN,
    "bo": LanguageRules(kind="unspaced", stops="།༎"),
}
