"""Whatever Apprise knows: more than a hundred services, by its URLs. Needs the extra ``apprise``.

Apprise returns no ids and can be asked nothing, so there are no threads, and a message whose answer
was lost is sent again. Of several URLs that do not all succeed, all are tried again.
"""

from __future__ import annotations

import threading

from deployguard.delivery import Rejected, Undelivered
from deployguard.notify.message import OVER, Attempt, Message, Receipt
from deployguard.notify.settings import ChannelSettings

__all__ = ["Apprise"]


class Apprise:
    """See the module."""

    def __init__(self, settings: ChannelSettings) -> None:
        self._settings = settings

    def send(self, attempt: Attempt) -> Receipt:
        try:
            import apprise
        except ImportError:
            hint = "pip install 'deployguard[apprise]'"
            raise Rejected("Apprise is not installed", hint) from None
        message, left = attempt.message, attempt.left
        services = apprise.Apprise()
        for url in self._settings.demand("url").reveal().split():
            if not services.add(url):
                raise Rejected("Apprise does not understand one of the URLs", "see its documents")
        kind = getattr(apprise.NotifyType, _type(message).upper())
        body = message.text or message.title
        said: list[bool] = []

        def notify() -> None:
            said.append(bool(services.notify(title=message.title, body=body, notify_type=kind)))

        # It has timeouts of its own that nobody here can bound; a thread can be left behind.
        thread = threading.Thread(target=notify, daemon=True)
        thread.start()
        thread.join(left)
        if not said:
            raise Undelivered("Apprise did not come to an end in time")
        if not said[0]:
            raise Undelivered("Apprise could not deliver it; -v shows what it says")
        return {"apprise": True}


def _type(message: Message) -> str:
    if message.kind in (*OVER, "mitigated", "deployed"):
        return "success"
    if message.kind in ("acknowledged", "update", "test"):
        return "info"
    return "failure" if message.level <= 2 else "warning"
