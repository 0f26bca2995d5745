"""What the page says, in English and in Chinese. Knows no page."""

from __future__ import annotations

from collections.abc import Mapping

LANGUAGES: Mapping[str, str] = {"en": "English", "zh": "中文"}

_WORDS: Mapping[str, tuple[str, str]] = {
    "title": ("FastChat-Yuan2", "FastChat-Yuan2"),
    "chat": ("Chat", "对话"),
    "side_by_side": ("Side by side", "并排对比"),
    "battle": ("Battle", "匿名对战"),
    "leaderboard": ("Leaderboard", "排行榜"),
    "about": ("About", "关于"),
    "about_text": (
        (
            "Chat with the models that are served here, compare two of them, and vote."
            " Conversations are kept on this server and nowhere else; the page loads nothing from"
            " other hosts."
        ),
        (
            "在这里可以与已部署的模型对话，对比两个模型并投票。对话只保存在本服务器上；"
            "页面不会从其他主机加载任何内容。"
        ),
    ),
    "language": ("Language", "语言"),
    "theme": ("Light or dark", "浅色 / 深色"),
    "model": ("Model", "模型"),
    "model_a": ("Model A", "模型 A"),
    "model_b": ("Model B", "模型 B"),
    "message": ("Message", "消息"),
    "message_hint": (
        "Ask something. Enter sends, Shift+Enter makes a new line.",
        "请输入问题。回车发送，Shift+回车换行。",
    ),
    "conversation": ("Conversation", "对话内容"),
    "empty_chat": ("Ask the first question below.", "请在下方输入第一个问题。"),
    "earlier": ("Show earlier messages", "显示更早的消息"),
    "stop": ("Stop", "停止"),
    "regenerate": ("Regenerate", "重新生成"),
    "undo": ("Undo", "撤回"),
    "new_chat": ("New conversation", "新对话"),
    "clear": ("Clear", "清空"),
    "upvote": ("Good answer", "赞"),
    "downvote": ("Bad answer", "踩"),
    "flag": ("Flag", "举报"),
    "thanks": ("Thank you for your vote.", "感谢您的评价。"),
    "previous_version": ("Previous version", "上一版本"),
    "next_version": ("Next version", "下一版本"),
    "version": ("Version {at} of {of}", "第 {at} 版，共 {of} 版"),
    "branch": ("Continue from this message", "从此消息继续"),
    "settings": ("Settings", "设置"),
    "system": ("System prompt", "系统提示词"),
    "system_hint": ("How the model is to behave", "告诉模型应当如何表现"),
    "preset": ("Preset", "预设"),
    "precise": ("Precise", "精确"),
    "balanced": ("Balanced", "均衡"),
    "creative": ("Creative", "创意"),
    "custom": ("Custom", "自定义"),
    "temperature": ("Temperature", "温度"),
    "top_p": ("Top P", "Top P"),
    "max_tokens": ("Max output tokens", "最大输出长度（词元）"),
    "repetition_penalty": ("Repetition penalty", "重复惩罚"),
    "history": ("History", "历史记录"),
    "search": ("Search", "搜索"),
    "search_hint": ("In titles and messages", "搜索标题与消息"),
    "conversations": ("Conversations", "对话列表"),
    "manage": ("This conversation", "当前对话"),
    "name": ("Title", "标题"),
    "rename": ("Rename", "重命名"),
    "delete": ("Delete", "删除"),
    "export_json": ("Export as JSON", "导出 JSON"),
    "export_markdown": ("Export as Markdown", "导出 Markdown"),
    "import": ("Import", "导入"),
    "imported": ("{count} conversations imported.", "已导入 {count} 个对话。"),
    "stats_tokens": ("{tokens} tokens", "{tokens} 词元"),
    "stats_speed": ("{speed:.1f} tokens/s", "{speed:.1f} 词元/秒"),
    "stats_first": ("first token after {seconds:.2f} s", "首词元 {seconds:.2f} 秒"),
    "finish_stop": ("complete", "已完成"),
    "finish_length": ("cut at the length limit", "已达长度上限"),
    "finish_stopped": ("stopped", "已停止"),
    "request": ("request {request_id}", "请求 {request_id}"),
    "failed": ("No answer: {error}", "未能回答：{error}"),
    "broke_off": ("The answer broke off: {error}", "回答中断：{error}"),
    "no_model": ("Choose a model first.", "请先选择模型。"),
    "no_models": ("No model is served right now: {error}", "当前没有可用的模型：{error}"),
    "nobody_registered": ("no worker has registered", "没有已注册的模型服务"),
    "nothing_said": ("Type a message first.", "请先输入消息。"),
    "turn_limit": (
        "A conversation may have {limit} turns; please start a new one.",
        "一次对话最多 {limit} 轮，请开始新的对话。",
    ),
    "cut": (
        "The message was cut to {limit} characters.",
        "消息过长，已截断为 {limit} 个字符。",
    ),
    "too_long": (
        "This text has {tokens} tokens and the model reads {context} at most; shorten it.",
        "文本共 {tokens} 个词元，模型最多读取 {context} 个，请缩短后再发送。",
    ),
    "file_refused": ("{name} cannot be used: {error}", "无法使用 {name}：{error}"),
    "limit_running": (
        "You may have {limit} answers written at a time; wait for one to end.",
        "每位用户同时最多生成 {limit} 个回答，请等待其中一个完成。",
    ),
    "limit_hourly": (
        "You may send {limit} messages an hour; please wait.",
        "每位用户每小时最多发送 {limit} 条消息，请稍候。",
    ),
    "answering": ("An answer is being written; stop it first.", "正在生成回答，请先停止。"),
    "a_better": ("A is better", "A 更好"),
    "b_better": ("B is better", "B 更好"),
    "tie": ("Tie", "平局"),
    "both_bad": ("Both are bad", "都不好"),
    "new_round": ("New round", "新一轮"),
    "was": ("Model {side} was **{model}**.", "模型 {side} 是 **{model}**。"),
    "two_models": (
        "A battle needs two models; {count} is served.",
        "对战需要两个模型，当前只有 {count} 个。",
    ),
    "battle_intro": (
        "Two models answer and you do not know which. Vote to see their names.",
        "两个匿名模型同时作答。投票后显示模型名称。",
    ),
    "count_named": (
        "Also count votes of people who saw the names",
        "同时统计看到模型名称时的投票",
    ),
    "refresh": ("Count again", "重新统计"),
    "rank": ("Rank", "排名"),
    "rating": ("Rating (Bradley-Terry)", "评分（Bradley-Terry）"),
    "interval": ("95 % interval", "95% 区间"),
    "elo": ("Elo", "Elo"),
    "votes": ("Votes", "票数"),
    "wins": ("Wins", "胜率"),
    "no_votes": ("No votes have been cast yet.", "还没有投票。"),
    "ratings_plot": ("Ratings with 95 % intervals", "评分与 95% 区间"),
    "wins_plot": ("Share of wins, row against column", "胜率（行对列）"),
    "training": ("Training", "训练"),
    "train_model": ("Model to start from (folder)", "起始模型（文件夹）"),
    "train_data": ("Conversations (file)", "对话数据（文件）"),
    "full": ("All weights", "全量微调"),
    "lora": ("LoRA", "LoRA"),
    "qlora": ("QLoRA", "QLoRA"),
    "split_example_loss": ("Each answer in its own row", "每个回答单独成为一个样本"),
    "last_response_loss": ("The last answer only", "仅最后一个回答"),
    "efficient_loss": ("All answers in one row", "所有回答合为一个样本"),
    "train_output": ("Folder for the result", "输出文件夹"),
    "train_kind": ("What is trained", "训练方式"),
    "train_mode": ("Which answers are learned", "学习哪些回答"),
    "train_epochs": ("Epochs", "轮数"),
    "train_rate": ("Learning rate", "学习率"),
    "train_length": ("Longest row, in tokens", "最长样本（词元）"),
    "train_recipe": ("Recipe (YAML file)", "配方（YAML 文件）"),
    "train_more": ("Further flags", "其他参数"),
    "train_rows": ("Show rows", "查看样本"),
    "train_command": ("Show command", "查看命令"),
    "train_start": ("Start", "开始训练"),
    "train_stop": ("Stop training", "停止训练"),
    "train_serve": ("Serve the result", "部署结果"),
    "train_none": ("No run has been started yet.", "还没有训练任务。"),
    "train_running": ("Training into {output}.", "正在训练，输出到 {output}。"),
    "train_ended": ("The run into {output} has ended.", "输出到 {output} 的训练已结束。"),
    "train_loss": ("Loss", "损失"),
    "train_serving": ("Starting a worker for {name} …", "正在为 {name} 启动模型服务……"),
    "train_served": (
        "{name} is served: it is chosen in the chat.",
        "{name} 已部署，并已在对话页选中。",
    ),
    "train_nowhere": (
        "The page has no controller at which a worker could register.",
        "页面没有连接控制器，无法部署模型。",
    ),
    "train_shown": ("Rows and command", "样本与命令"),
    "train_log": ("Log", "日志"),
    "counted": ("{votes} votes between {models} models.", "{models} 个模型之间共 {votes} 票。"),
}


_CAUSES: Mapping[str, str] = {
    "WorkerUnavailableError": "模型服务不可用",
    "WorkerTimeoutError": "模型服务长时间没有响应",
    "OverloadedError": "模型服务繁忙，请稍后再试",
    "RateLimitError": "请求过于频繁，请稍后再试",
    "DeadlineError": "未能在限定时间内完成",
    "UnknownModelError": "没有这个模型",
    "ContextOverflowError": "内容超出模型的上下文长度",
    "AuthenticationError": "密钥无效或没有权限",
    "ForbiddenError": "没有权限",
    "TooLargeError": "内容过大",
    "GenerationError": "模型生成失败",
    "RequestError": "请求无法处理",
}
"""What an error's kind means; the error itself speaks English."""


def cause(language: str, kind: str, error: str) -> str:
    """An error in the visitor's words, as far as there are any, and in its own."""
    return f"{_CAUSES[kind]}。{error}" if language == "zh" and kind in _CAUSES else error


def say(language: str, key: str, **values: object) -> str:
    """A text of the page.

    Args:
        language: one of `LANGUAGES`; another one reads English.
        key: which text.
        values: what stands in its braces.
    """
    return _WORDS[key][language == "zh"].format(**values)


def table(language: str) -> dict[str, str]:
    """All texts of a language, by their keys."""
    return {key: texts[language == "zh"] for key, texts in _WORDS.items()}


def language_of(accept_language: str) -> str:
    """The language that a browser's `Accept-Language` likes best among those of the page."""
    weighted = []
    for place, part in enumerate(accept_language.split(",")):
        name, _, rest = part.strip().partition(";")
        _, _, weight = rest.partition("=")
        try:
            liked = float(weight) if weight else 1.0
        except ValueError:
            liked = 0.0
        code = name.strip().lower().partition("-")[0]
        if code in LANGUAGES:
            weighted.append((-liked, place, code))
    return min(weighted)[2] if weighted else "en"
