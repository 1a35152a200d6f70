"""Short passages written for these tests, one a script."""

from __future__ import annotations

import json

ENGLISH = """\
We moved the launch to the second week of March because the payment provider needs ten working
days for the security review. Priya will tell the two pilot customers, and I'll update the
roadmap tonight. Don't change the pricing page until Tom has signed off on the new wording; he's
back on Thursday. If anything slips, the fallback is to ship without the annual plan, which only
nine people have asked for. Could you book a room for Friday at half past two, somewhere quiet?
"""

CODE = '''\
from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass
class RateLimiter:
    """Allow at most `capacity` calls in any `window` seconds."""

    capacity: int
    window: float = 60.0
    _calls: list[float] = field(default_factory=list)

    async def acquire(self, *, now: float) -> bool:
        self._calls = [at for at in self._calls if now - at < self.window]
        if len(self._calls) >= self.capacity:
            await asyncio.sleep(self.window - (now - self._calls[0]))
            return False
        self._calls.append(now)
        return True


def parse_line(line: str) -> dict[str, int | None]:
    key, _, raw = line.partition("=")
    return {key.strip(): int(raw) if raw.strip().isdigit() else None}
'''

JSON = json.dumps(
    {
        "order_id": "A-2024-001873",
        "customer": {"id": 58213, "email": "m.okafor@example.com", "tier": "gold", "active": True},
        "items": [
            {"sku": "BK-113-XL", "quantity": 2, "unit_price": 34.95, "discount": None},
            {"sku": "HL-020-S", "quantity": 1, "unit_price": 119.0, "discount": 0.15},
        ],
        "created_at": "2024-05-17T09:41:22Z",
        "shipping": {"method": "express", "address": {"city": "Leeds", "postcode": "LS1 4DY"}},
        "tags": ["priority", "gift_wrap", "newsletter_optin"],
    },
    indent=2,
)

CHINESE = """\
我们把发布时间推迟到三月的第二周，因为支付服务商需要十个工作日来完成安全审查。小李会通知两位试点客户，我今晚更新
路线图。在老王确认新的文案之前，请不要修改价格页面，他星期四才回来。如果进度再延误，备用方案是先不上线年度套餐，
毕竟只有九个人提过这个要求。另外，你能不能帮忙预订周五下午两点半的会议室？最好安静一点，投影仪也要能用。
昨天的会议上大家都同意先把数据库迁移做完，然后再处理搜索变慢的问题。
"""

TRADITIONAL_CHINESE = """\
我們把發佈時間延到三月的第二週，因為支付服務商需要十個工作天來完成安全審查。小李會通知兩位試用客戶，我今晚會更新
路線圖。在老王確認新的文案之前，請不要修改價格頁面，他星期四才會回來。如果進度又延誤，備用方案是先不推出年費方案，
畢竟只有九個人提過這個要求。另外，你可以幫忙預訂週五下午兩點半的會議室嗎？最好安靜一點，投影機也要能用。
"""

JAPANESE = """\
決済サービスの会社がセキュリティ審査に十営業日かかると言っているので、公開は三月の第二週に延ばしました。田中さんが
二社の先行利用のお客様に連絡し、私は今夜ロードマップを更新します。木曜日に戻る鈴木さんが新しい文面を確認するまで、
料金ページは変更しないでください。もし遅れる場合は、年間プランなしで公開する予定です。希望した人は九人だけでした。
それから、金曜日の午後二時半に会議室を予約していただけますか。できれば静かな部屋がいいです。よろしくお願いします。
"""

KOREAN = """\
결제 업체가 보안 검토에 영업일 기준 열흘이 필요하다고 해서 출시를 삼월 둘째 주로 미루었습니다. 지민 씨가 시범 고객
두 곳에 알리고, 저는 오늘 밤에 일정표를 고치겠습니다. 목요일에 돌아오는 민수 씨가 새 문구를 확인할 때까지 가격
페이지는 바꾸지 마세요. 또 늦어지면 연간 요금제 없이 먼저 출시하는 것이 대안입니다. 그것을 원한 사람은 아홉 명뿐이었어요.
그리고 금요일 오후 두 시 반에 회의실을 예약해 주실 수 있나요? 조용한 곳이면 좋겠습니다.
"""

ARABIC = """\
أجلنا الإطلاق إلى الأسبوع الثاني من شهر مارس لأن مزود خدمة الدفع يحتاج إلى عشرة أيام عمل لمراجعة الأمان. ستخبر سلمى
العميلين التجريبيين، وسأحدّث خطة العمل هذه الليلة. لا تغيّر صفحة الأسعار قبل أن يوافق أحمد على الصياغة الجديدة، فهو يعود
يوم الخميس. إذا تأخر شيء آخر فالبديل أن نطلق المنتج من دون الاشتراك السنوي الذي لم يطلبه سوى تسعة أشخاص. هل يمكنك أن تحجز
غرفة اجتماعات يوم الجمعة في الساعة الثانية والنصف؟ من الأفضل أن تكون هادئة.
"""

HINDI = """\
हमने लॉन्च को मार्च के दूसरे सप्ताह तक टाल दिया है क्योंकि भुगतान सेवा देने वाली कंपनी को सुरक्षा जाँच के लिए दस कार्य दिवस चाहिए। प्रिया
दोनों परीक्षण ग्राहकों को बता देंगी और मैं आज रात योजना को अपडेट कर दूँगा। जब तक राहुल नए शब्दों को मंज़ूरी नहीं देते, तब तक कीमत वाले
पेज को मत बदलिए; वे गुरुवार को लौटेंगे। अगर फिर देरी हुई तो हम वार्षिक योजना के बिना ही शुरू करेंगे, क्योंकि उसे केवल नौ लोगों ने माँगा था।
क्या आप शुक्रवार को दोपहर ढाई बजे के लिए एक शांत कमरा बुक कर सकते हैं?
"""

THAI = """\
เราเลื่อนการเปิดตัวไปเป็นสัปดาห์ที่สองของเดือนมีนาคม เพราะผู้ให้บริการชำระเงินต้องใช้เวลาสิบวันทำการในการตรวจสอบความปลอดภัย
คุณมาลีจะแจ้งลูกค้าทดลองทั้งสองราย และผมจะปรับแผนงานคืนนี้ อย่าเพิ่งแก้หน้าราคาจนกว่าคุณสมชายจะอนุมัติข้อความใหม่ เขาจะกลับมา
วันพฤหัสบดี ถ้ายังล่าช้าอีก แผนสำรองคือเปิดตัวโดยไม่มีแพ็กเกจรายปี ซึ่งมีคนขอเพียงเก้าคนเท่านั้น ช่วยจองห้องประชุมเงียบ ๆ
วันศุกร์ตอนบ่ายสองโมงครึ่งให้หน่อยได้ไหม
"""

EMOJI = """\
😀😂🤣 great news!! 🎉🎉 shipped it 🚀🚀 ❤️🔥 👍🏽 👩‍💻 see you at 5 ☕🍰 🙏🙏 lol 😅 rain again 🌧️☔ 😭 congrats 🥳👏👏 bug 🐛 fixed ✅
🇯🇵 trip ✈️🗼🍣 so good 😍 vs 🇩🇪 🍺 next 💪💯 ok 👌 hmm 🤔🤷 bye 👋😘
"""

BY_SCRIPT = {
    "english": ENGLISH,
    "code": CODE,
    "json": JSON,
    "chinese": CHINESE,
    "traditional chinese": TRADITIONAL_CHINESE,
    "japanese": JAPANESE,
    "korean": KOREAN,
    "arabic": ARABIC,
    "hindi": HINDI,
    "thai": THAI,
    "emoji": EMOJI,
}
