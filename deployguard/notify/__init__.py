"""Tells people about incidents and deploys, over channels that a plan names.

What happens to an incident is put into the outbox by a hook of the
:class:`~deployguard.incidents.book.Book`, in the transaction that writes it down: whoever writes
through :func:`deployguard.report.incidents.book_of` has nothing else to do. What is in the outbox
is sent by :func:`deployguard.notify.delivery.flush`, which commands call when their work is done::

    book = book_of(journal, redaction, actor)      # has the hook
    book.move("INC-20261121-001", "acknowledge")   # durable, together with its messages
    for told in flush(journal):                    # sends what waits; raises nothing
        print(told.channel, told.state, told.said)

* :func:`~deployguard.notify.settings.remember` keeps what a plan says about notifications beside
  the incidents of its service and environment, so that ``incident ack`` needs no plan.
* A note of the kind ``update``, ``book.note(incident, text, kind="update")``, goes to every channel
  that was told of the incident, the status page included: what responders want to be known.
* :func:`~deployguard.notify.announce.deployed` puts the end of a deploy into the outbox.

A channel is one module with one class; see :class:`~deployguard.notify.message.Channel`. No message
delays a rescue: a deploy is over and on record before the first is sent.
"""
